"""Does with the Python recipe what it is told, a line at a time; see `client.rs`."""

import base64
import pickle
import sys
import threading

import tidegate_tokens

audience, offset, real_now = sys.argv[1], 0, tidegate_tokens._now
tidegate_tokens._now = lambda: real_now() + offset
tokens = tidegate_tokens.for_audience(audience)


def outcome():
    try:
        return tokens.headers()["Authorization"].removeprefix("Bearer ")
    except tidegate_tokens.TokenUnavailable as error:
        return f"error: {error}"


def burst(count):
    outcomes, start = [], threading.Barrier(count)

    def one():
        start.wait()
        outcomes.append(outcome())

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "\t".join(sorted(set(outcomes)))


def grpc():
    answers = []
    tokens(None, lambda metadata, error: answers.append((metadata, error)))
    [(metadata, error)] = answers
    return f"error: {error}" if error else " ".join(metadata[0])


for line in sys.stdin:
    command, _, argument = line.strip().partition(" ")
    if command == "token":
        answer = outcome()
    elif command == "burst":
        answer = burst(int(argument))
    elif command == "advance":
        offset += int(argument)
        answer = "done"
    elif command == "describe":
        answer = repr(tokens)
    elif command == "serialize":
        pickled = pickle.dumps(tokens)
        assert pickle.loads(pickled) is tokens
        answer = base64.b64encode(pickled).decode()
    elif command == "grpc":
        answer = grpc()
    else:
        answer = f"unknown command {command}"
    print(answer, flush=True)
