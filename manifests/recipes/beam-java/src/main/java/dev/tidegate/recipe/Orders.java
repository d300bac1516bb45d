package dev.tidegate.recipe;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import org.apache.beam.sdk.Pipeline;
import org.apache.beam.sdk.options.Description;
import org.apache.beam.sdk.options.PipelineOptions;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.sdk.options.Validation;
import org.apache.beam.sdk.transforms.Create;
import org.apache.beam.sdk.transforms.DoFn;
import org.apache.beam.sdk.transforms.ParDo;

/** A Beam pipeline whose workers write to a service behind Tidegate, each request with the worker's own identity. */
public final class Orders {
  private Orders() {}

  /** What the pipeline is told. */
  public interface Options extends PipelineOptions {
    @Description("Where the service is")
    @Validation.Required
    String getUrl();

    void setUrl(String url);

    @Description("The audience of the service's Guard")
    @Validation.Required
    String getAudience();

    void setAudience(String audience);
  }

  /** Posts each order, and says who refused one and why. */
  static final class WriteOrder extends DoFn<Integer, Integer> {
    private static final long serialVersionUID = 1L;

    private final String url;
    private final String audience;
    private transient IdentityTokens tokens;
    private transient HttpClient http;

    WriteOrder(String url, String audience) {
      this.url = url;
      this.audience = audience;
    }

    @Setup
    public void setup() {
      // Once per DoFn instance. All of a process share what they get here.
      tokens = IdentityTokens.forAudience(audience);
      http = HttpClient.newBuilder().followRedirects(HttpClient.Redirect.NEVER).build();
    }

    @ProcessElement
    public void process(@Element Integer order, OutputReceiver<Integer> written)
        throws IOException, InterruptedException {
      HttpRequest request =
          HttpRequest.newBuilder(URI.create(url + "/v1/orders/" + order))
              .timeout(Duration.ofSeconds(30))
              // Asked for every request: tokens live for an hour, workers for days.
              .header("Authorization", tokens.authorization())
              .header("Content-Type", "application/json")
              .POST(HttpRequest.BodyPublishers.ofString("{\"id\": " + order + "}"))
              .build();
      HttpResponse<String> answer = http.send(request, HttpResponse.BodyHandlers.ofString());
      if (answer.statusCode() >= 300) {
        // Beam tries the bundle again. Tidegate's reason and decision id are in the body.
        throw new IOException("order " + order + ": " + answer.statusCode() + " " + answer.body());
      }
      written.output(order);
    }
  }

  /** Runs it. */
  public static void main(String[] arguments) {
    Options options = PipelineOptionsFactory.fromArgs(arguments).withValidation().as(Options.class);
    Pipeline pipeline = Pipeline.create(options);
    pipeline
        .apply(Create.of(7, 8))
        .apply(ParDo.of(new WriteOrder(options.getUrl(), options.getAudience())));
    pipeline.run().waitUntilFinish();
  }
}
