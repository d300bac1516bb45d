package dev.tidegate.recipe;

import java.io.IOException;
import java.io.ObjectStreamException;
import java.io.Serializable;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Clock;
import java.time.Duration;
import java.util.Base64;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.locks.ReentrantLock;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Identity tokens of the VM that this code runs on, for services behind Tidegate.
 *
 * <p>A Google VM, a Dataflow worker among them, gets a signed statement from its metadata server: which service account
 * and which VM it is. {@code IdentityTokens.forAudience(AUDIENCE)} hands out such tokens. It is safe to call from any
 * number of threads, asks the metadata server once for all of them, and renews a token before it ends. Nothing but the
 * JDK (11 or later) is needed.
 *
 * <p>Tokens are credentials. They are not logged, not serialised into the pipeline's graph, and not part of any message
 * here.
 *
 * <p>This works where the metadata server is Google's own: on VMs and on Dataflow workers. In a Kubernetes pod mount a
 * projected service account token instead, and read the file for every request.
 */
public final class IdentityTokens implements Serializable {
  private static final long serialVersionUID = 1L;

  /** A token is renewed this long before it ends, or after half of what is left of it, whichever is later. */
  private static final long RENEW_BEFORE_S = 300;

  /** A token that ends sooner than this may be over when the request arrives. */
  private static final long TRAVEL_S = 10;

  /** After a failed renewal the old token is used on, and the next attempt is this far away. */
  private static final long PAUSE_S = 10;

  private static final Duration TIMEOUT = Duration.ofSeconds(5);
  private static final long[] WAITS_MS = {200, 500, 1000};

  private static final Pattern EXPIRES = Pattern.compile("\"exp\"\\s*:\\s*(\\d{1,12})\\b");
  private static final Pattern ON_VM = Pattern.compile("\"compute_engine\"\\s*:\\s*\\{");

  private static final ConcurrentMap<String, IdentityTokens> ALL = new ConcurrentHashMap<>();

  /** There is no token, and the message says why. */
  public static final class Unavailable extends IOException {
    private static final long serialVersionUID = 1L;

    Unavailable(String message, Throwable cause) {
      super(message, cause);
    }
  }

  private static final class Token {
    final String text;
    final long expires;
    final long renew;

    Token(String text, long expires, long renew) {
      this.text = text;
      this.expires = expires;
      this.renew = renew;
    }
  }

  private static final class Failure {
    final long at = System.nanoTime();
    final Unavailable error;

    Failure(Unavailable error) {
      this.error = error;
    }
  }

  private final String audience;
  private final transient Clock clock;
  private final transient HttpClient metadataServer;
  /** Held by whoever asks the metadata server. */
  private final transient ReentrantLock renewing = new ReentrantLock();
  private transient volatile Token current;
  private transient volatile Failure failure;

  /** The process's only source of tokens for this audience, which is that of the service's Guard. */
  public static IdentityTokens forAudience(String audience) {
    return ALL.computeIfAbsent(audience, each -> new IdentityTokens(each, Clock.systemUTC()));
  }

  IdentityTokens(String audience, Clock clock) {
    this.audience = audience;
    this.clock = clock;
    // The metadata server is on this machine's own link: never behind a proxy, never somewhere else.
    this.metadataServer =
        HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .proxy(HttpClient.Builder.NO_PROXY)
            .followRedirects(HttpClient.Redirect.NEVER)
            .connectTimeout(TIMEOUT)
            .build();
  }

  /** The value of the header or metadata entry {@code authorization}. Ask again for every request. */
  public String authorization() throws Unavailable {
    return "Bearer " + token();
  }

  /** A token that is still good for a while. */
  public String token() throws Unavailable {
    long asked = System.nanoTime();
    Token known = current;
    long now = now();
    if (known != null && now < known.renew) {
      return known.text;
    }
    boolean usable = known != null && now < known.expires - TRAVEL_S;
    // While one thread renews, the others go on with the old token, or wait where there is none.
    if (!usable) {
      renewing.lock();
    } else if (!renewing.tryLock()) {
      return known.text;
    }
    try {
      if (current != known) {
        return current.text;
      }
      Failure last = failure;
      if (last != null && last.at - asked > 0) {
        throw last.error;
      }
      try {
        current = fetch();
      } catch (Unavailable error) {
        if (!usable) {
          failure = new Failure(error);
          throw error;
        }
        current = new Token(known.text, known.expires, now + PAUSE_S);
      }
      return current.text;
    } finally {
      renewing.unlock();
    }
  }

  @Override
  public String toString() {
    return "IdentityTokens(" + audience + ")";
  }

  /** Beam serialises DoFns: what travels is the audience, and each worker asks for its own tokens. */
  private Object readResolve() throws ObjectStreamException {
    return forAudience(audience);
  }

  private long now() {
    return clock.instant().getEpochSecond();
  }

  private Token fetch() throws Unavailable {
    String variable = System.getenv("GCE_METADATA_HOST");
    String host = variable != null ? variable : "metadata.google.internal";
    // `format=full` adds which VM this is; without it no rule can tell one job's workers from another's.
    HttpRequest request =
        HttpRequest.newBuilder(
                URI.create(
                    "http://"
                        + host
                        + "/computeMetadata/v1/instance/service-accounts/default/identity?audience="
                        + URLEncoder.encode(audience, StandardCharsets.UTF_8)
                        + "&format=full"))
            .header("Metadata-Flavor", "Google")
            .timeout(TIMEOUT)
            .build();
    for (int attempt = 0; ; attempt++) {
      String why;
      Throwable cause = null;
      try {
        HttpResponse<String> answer =
            metadataServer.send(request, HttpResponse.BodyHandlers.ofString(StandardCharsets.US_ASCII));
        int status = answer.statusCode();
        if (status == 200) {
          if (!answer.headers().firstValue("Metadata-Flavor").orElse("").equals("Google")) {
            throw new Unavailable(host + " is not Google's metadata server: is this a Google VM?", null);
          }
          return read(answer.body().trim());
        }
        why = "the metadata server at " + host + " answered " + status;
        if (status == 404) {
          why += ": this VM has no service account";
        }
        if (status < 500 && status != 429) {
          throw new Unavailable(why, null);
        }
      } catch (Unavailable error) {
        throw error;
      } catch (IOException error) {
        why = "the metadata server at " + host + " cannot be reached: " + error + "; is this a Google VM?";
        cause = error;
      } catch (InterruptedException error) {
        Thread.currentThread().interrupt();
        throw new Unavailable("interrupted", error);
      }
      if (attempt == WAITS_MS.length) {
        throw new Unavailable(why, cause);
      }
      try {
        Thread.sleep((long) (WAITS_MS[attempt] * ThreadLocalRandom.current().nextDouble(0.5, 1.5)));
      } catch (InterruptedException error) {
        Thread.currentThread().interrupt();
        throw new Unavailable("interrupted", error);
      }
    }
  }

  /** Reads when the token ends. Whoever receives the token verifies it; here it is only ours. */
  private Token read(String text) throws Unavailable {
    String claims;
    try {
      claims = new String(Base64.getUrlDecoder().decode(text.split("\\.", -1)[1]), StandardCharsets.UTF_8);
    } catch (IllegalArgumentException | ArrayIndexOutOfBoundsException error) {
      claims = "";
    }
    Matcher exp = EXPIRES.matcher(claims);
    if (!exp.find()) {
      throw new Unavailable("what the metadata server sent is no identity token", null);
    }
    if (!ON_VM.matcher(claims).find()) {
      throw new Unavailable(
          "the token does not say which VM this is: in a GKE pod use a projected service account token", null);
    }
    long expires = Long.parseLong(exp.group(1));
    long left = expires - now();
    if (left <= TRAVEL_S) {
      throw new Unavailable("the metadata server sent a token that is over: is this VM's clock right?", null);
    }
    return new Token(text, expires, expires - Math.min(RENEW_BEFORE_S, left / 2));
  }
}
