import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.annotation.JsonPropertyOrder;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import com.fasterxml.jackson.databind.cfg.JsonNodeFeature;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.pulsar.client.api.Consumer;
import org.apache.pulsar.client.api.Message;
import org.apache.pulsar.client.api.Producer;
import org.apache.pulsar.client.api.PulsarClient;
import org.apache.pulsar.client.api.Schema;
import org.apache.pulsar.client.api.SubscriptionType;

/**
 * A service of the platform in Java, with Pulsar's own client and Jackson as they come.
 *
 * <pre>
 * Peer URL read NAME TOPIC...            prints one new message for each topic, as lines of JSON
 * Peer URL write (TOPIC FILE KEY)...     publishes each FILE, through its Java type where it has one
 * </pre>
 *
 * It says "ready" on a line of its own once its subscription is with the broker.
 */
public final class Peer {
    private static final int PATIENCE_SECONDS = 30;

    private static final ObjectMapper JSON =
            new ObjectMapper()
                    .configure(JsonNodeFeature.STRIP_TRAILING_BIGDECIMAL_ZEROES, false)
                    .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
                    .enable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES)
                    .enable(DeserializationFeature.FAIL_ON_MISSING_CREATOR_PROPERTIES)
                    .setPropertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE);

    @JsonPropertyOrder({"timestamp", "trace_id", "service", "event_type", "message_id", "schema",
        "conversation", "user_message", "agent_response", "context", "performance", "metadata"})
    @JsonInclude(JsonInclude.Include.NON_NULL)
    record ConversationEvent(
            String timestamp, String traceId, String service, String eventType, String messageId,
            String schema, Conversation conversation, UserMessage userMessage,
            AgentResponse agentResponse, Context context, Performance performance,
            Metadata metadata) {}

    record Conversation(
            String id, String sessionId, String userId, String agentId, int turnIndex) {}

    @JsonInclude(JsonInclude.Include.NON_NULL)
    record UserMessage(
            String text, Integer audioDurationMs, String sttModel, Double sttConfidence,
            Integer sttLatencyMs) {}

    @JsonInclude(JsonInclude.Include.NON_NULL)
    record AgentResponse(
            String text, String llmModel, Integer llmTokensUsed, Integer llmLatencyMs,
            String ttsModel, Integer ttsAudioDurationMs, Integer ttsLatencyMs) {}

    record Context(
            int previousTurnCount, int contextTokensUsed, List<String> toolsInvoked,
            String embeddingVectorId) {}

    record Performance(
            int totalLatencyMs, int sttLatencyMs, int llmLatencyMs, int ttsLatencyMs,
            int networkOverheadMs) {}

    record Metadata(
            String roomName, String participantSid, String traceId, String environment,
            String region) {}

    private Peer() {}

    public static void main(String[] arguments) throws Exception {
        List<String> rest = Arrays.asList(arguments).subList(2, arguments.length);
        try (PulsarClient client = PulsarClient.builder().serviceUrl(arguments[0]).build()) {
            if (arguments[1].equals("read")) {
                read(client, rest.get(0), rest.subList(1, rest.size()));
            } else if (arguments[1].equals("write")) {
                for (int at = 0; at < rest.size(); at += 3) {
                    write(client, rest.get(at), Path.of(rest.get(at + 1)), rest.get(at + 2));
                }
            } else {
                throw new IllegalArgumentException("no mode " + arguments[1]);
            }
        }
    }

    private static void read(PulsarClient client, String name, List<String> topics)
            throws Exception {
        try (Consumer<byte[]> consumer =
                client.newConsumer(Schema.BYTES)
                        .topics(topics)
                        .subscriptionName(name)
                        .subscriptionType(SubscriptionType.Shared)
                        .subscribe()) {
            System.out.println("ready");
            for (int seen = 0; seen < topics.size(); seen++) {
                Message<byte[]> message = consumer.receive(PATIENCE_SECONDS, TimeUnit.SECONDS);
                if (message == null) {
                    throw new IllegalStateException(
                            topics.size() - seen + " messages did not arrive");
                }
                consumer.acknowledge(message);
                Map<String, Object> line = new LinkedHashMap<>();
                line.put("topic", message.getTopicName());
                line.put("key", message.getKey());
                line.put("properties", message.getProperties());
                line.put("body", message.getData());
                line.put("again", again(message.getTopicName(), message.getData()));
                System.out.println(JSON.writeValueAsString(line));
            }
        }
    }

    private static void write(PulsarClient client, String topic, Path path, String key)
            throws Exception {
        byte[] golden = Files.readAllBytes(path);
        byte[] body = again(topic, golden);
        if (!Arrays.equals(body, golden)) {
            throw new IllegalStateException(
                    "Java writes " + new String(body, StandardCharsets.UTF_8));
        }
        try (Producer<byte[]> producer = client.newProducer(Schema.BYTES).topic(topic).create()) {
            producer.newMessage().key(key).value(body).send();
        }
    }

    /**
     * Reads a message, into its type where this peer has one, and writes it from there: as a
     * string, since Jackson's own UTF-8 writer escapes what is beyond the first 65536 characters.
     */
    private static byte[] again(String topic, byte[] body) throws Exception {
        Object read =
                topic.endsWith("/conversations")
                        ? JSON.readValue(body, ConversationEvent.class)
                        : JSON.readTree(body);
        return JSON.writeValueAsString(read).getBytes(StandardCharsets.UTF_8);
    }
}
