package dev.tidegate.recipe;

import io.grpc.CallCredentials;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.concurrent.Executor;

/** The VM's identity with every gRPC call: {@code stub.withCallCredentials(new IdentityTokenCredentials(tokens))}. */
public final class IdentityTokenCredentials extends CallCredentials {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final IdentityTokens tokens;

  public IdentityTokenCredentials(IdentityTokens tokens) {
    this.tokens = tokens;
  }

  @Override
  public void applyRequestMetadata(RequestInfo request, Executor executor, MetadataApplier applier) {
    // Asking may take a while, and this thread belongs to the channel.
    executor.execute(
        () -> {
          Metadata metadata = new Metadata();
          try {
            metadata.put(AUTHORIZATION, tokens.authorization());
          } catch (IdentityTokens.Unavailable error) {
            applier.fail(Status.UNAVAILABLE.withDescription(error.getMessage()).withCause(error));
            return;
          }
          applier.apply(metadata);
        });
  }
}
