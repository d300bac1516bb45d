package dev.tidegate.recipe;

import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.time.Clock;
import java.time.Instant;
import java.time.ZoneId;
import java.time.ZoneOffset;
import java.util.Base64;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.CyclicBarrier;

/** Does with the Java recipe what it is told, a line at a time; see {@code client.rs}. */
public final class Drive {
  private static volatile long offset = 0;

  private static final Clock CLOCK =
      new Clock() {
        @Override
        public ZoneId getZone() {
          return ZoneOffset.UTC;
        }

        @Override
        public Clock withZone(ZoneId zone) {
          return this;
        }

        @Override
        public Instant instant() {
          return Instant.now().plusSeconds(offset);
        }
      };

  private static String outcome(IdentityTokens tokens) {
    try {
      return tokens.authorization().substring("Bearer ".length());
    } catch (IdentityTokens.Unavailable error) {
      return "error: " + error.getMessage();
    }
  }

  private static String burst(IdentityTokens tokens, int count) throws Exception {
    Set<String> outcomes = new ConcurrentSkipListSet<>();
    CyclicBarrier start = new CyclicBarrier(count);
    Thread[] threads = new Thread[count];
    for (int at = 0; at < count; at++) {
      threads[at] =
          new Thread(
              () -> {
                try {
                  start.await();
                } catch (Exception error) {
                  throw new IllegalStateException(error);
                }
                outcomes.add(outcome(tokens));
              });
      threads[at].start();
    }
    for (Thread thread : threads) {
      thread.join();
    }
    return String.join("\t", new TreeSet<>(outcomes));
  }

  private static String serialize(String audience) throws Exception {
    IdentityTokens shared = IdentityTokens.forAudience(audience);
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
      out.writeObject(shared);
    }
    try (ObjectInputStream in = new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray()))) {
      if (in.readObject() != shared) {
        throw new IllegalStateException("another object came back");
      }
    }
    return Base64.getEncoder().encodeToString(bytes.toByteArray());
  }

  public static void main(String[] arguments) throws Exception {
    String audience = arguments[0];
    IdentityTokens tokens = new IdentityTokens(audience, CLOCK);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String[] words = line.trim().split(" ", 2);
      String answer;
      switch (words[0]) {
        case "token":
          answer = outcome(tokens);
          break;
        case "burst":
          answer = burst(tokens, Integer.parseInt(words[1]));
          break;
        case "advance":
          offset += Long.parseLong(words[1]);
          answer = "done";
          break;
        case "describe":
          answer = tokens.toString();
          break;
        case "serialize":
          // What is serialised is the process's own provider, which has a token by now.
          IdentityTokens.forAudience(audience).authorization();
          answer = serialize(audience);
          break;
        default:
          answer = "unknown command " + words[0];
      }
      System.out.println(answer);
      System.out.flush();
    }
  }
}
