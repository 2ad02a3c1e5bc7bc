package main

import "encoding/json"

// Envelope is what every message carries beside its own fields. Messages that
// have a `service` of another kind spell the envelope out themselves.
type Envelope struct {
	Timestamp string `json:"timestamp"`
	TraceID   string `json:"trace_id"`
	Service   string `json:"service"`
	EventType string `json:"event_type,omitempty"`
	MessageID string `json:"message_id,omitempty"`
}

// Open is an object whose fields the contracts do not fix: kept as it came.
type Open = json.RawMessage

type TrackPublished struct {
	Envelope
	Event               string `json:"event"`
	RoomName            string `json:"room_name"`
	RoomSID             string `json:"room_sid"`
	ParticipantSID      string `json:"participant_sid"`
	ParticipantIdentity string `json:"participant_identity"`
	TrackSID            string `json:"track_sid"`
	TrackKind           string `json:"track_kind"`
	TrackSource         string `json:"track_source"`
	Metadata            Open   `json:"metadata,omitempty"`
}

type TrackUnpublished struct {
	Envelope
	Event           string  `json:"event"`
	RoomName        string  `json:"room_name"`
	ParticipantSID  string  `json:"participant_sid"`
	TrackSID        string  `json:"track_sid"`
	Reason          string  `json:"reason"`
	DurationSeconds float64 `json:"duration_seconds"`
}

type SessionStarted struct {
	Envelope
	Event          string `json:"event"`
	UserID         string `json:"user_id"`
	SessionID      string `json:"session_id"`
	RoomName       string `json:"room_name"`
	RoomSID        string `json:"room_sid"`
	ParticipantSID string `json:"participant_sid"`
	AgentID        string `json:"agent_id"`
}

type SessionEnded struct {
	Envelope
	Event           string  `json:"event"`
	UserID          string  `json:"user_id"`
	SessionID       string  `json:"session_id"`
	RoomName        string  `json:"room_name"`
	DurationSeconds float64 `json:"duration_seconds"`
	TotalTurns      int     `json:"total_turns"`
	Reason          string  `json:"reason"`
	FinalStatus     string  `json:"final_status"`
}

type Turn struct {
	User  string `json:"user"`
	Agent string `json:"agent"`
}

type BrainContext struct {
	PreviousTurns []Turn `json:"previous_turns"`
	UserProfile   Open   `json:"user_profile,omitempty"`
}

type BrainConstraints struct {
	MaxTokens   int     `json:"max_tokens"`
	Temperature float64 `json:"temperature"`
	TimeoutMS   int     `json:"timeout_ms"`
}

type BrainRequest struct {
	Envelope
	RequestID      string            `json:"request_id"`
	UserID         string            `json:"user_id"`
	SessionID      string            `json:"session_id"`
	ConversationID string            `json:"conversation_id"`
	TurnIndex      int               `json:"turn_index"`
	UserInput      string            `json:"user_input"`
	Context        *BrainContext     `json:"context,omitempty"`
	Constraints    *BrainConstraints `json:"constraints,omitempty"`
}

type BrainMetadata struct {
	LLMModel        string   `json:"llm_model"`
	TokensUsed      int      `json:"tokens_used"`
	ReasoningSteps  int      `json:"reasoning_steps"`
	ToolsCalled     []string `json:"tools_called"`
	ConfidenceScore float64  `json:"confidence_score"`
}

type BrainPerformance struct {
	LLMLatencyMS      float64 `json:"llm_latency_ms"`
	TotalProcessingMS float64 `json:"total_processing_ms"`
}

type BrainResponse struct {
	Envelope
	RequestID      string            `json:"request_id"`
	UserID         string            `json:"user_id"`
	SessionID      string            `json:"session_id"`
	ConversationID string            `json:"conversation_id"`
	TurnIndex      int               `json:"turn_index"`
	AgentResponse  string            `json:"agent_response"`
	Metadata       *BrainMetadata    `json:"metadata,omitempty"`
	Performance    *BrainPerformance `json:"performance,omitempty"`
}

type BrainError struct {
	Envelope
	RequestID        string  `json:"request_id"`
	ErrorType        string  `json:"error_type"`
	ErrorMessage     string  `json:"error_message"`
	RetryCount       int     `json:"retry_count"`
	FallbackResponse *string `json:"fallback_response,omitempty"`
}

type TTSConstraints struct {
	MaxLatencyMS int    `json:"max_latency_ms"`
	Format       string `json:"format"`
	SampleRate   int    `json:"sample_rate"`
}

type TTSRequest struct {
	Envelope
	RequestID   string          `json:"request_id"`
	Text        string          `json:"text"`
	VoiceID     string          `json:"voice_id"`
	SessionID   string          `json:"session_id"`
	TargetRoom  string          `json:"target_room"`
	Constraints *TTSConstraints `json:"constraints,omitempty"`
}

type TTSCompleted struct {
	Envelope
	RequestID          string  `json:"request_id"`
	AudioTrackSID      string  `json:"audio_track_sid"`
	DurationMS         float64 `json:"duration_ms"`
	SynthesisLatencyMS float64 `json:"synthesis_latency_ms"`
	AudioFormat        string  `json:"audio_format"`
	ReadyForPlayback   bool    `json:"ready_for_playback"`
}

type Heartbeat struct {
	Envelope
	Status  string `json:"status"`
	Metrics Open   `json:"metrics,omitempty"`
}

type ServiceError struct {
	Envelope
	ErrorType      string  `json:"error_type"`
	ErrorMessage   string  `json:"error_message"`
	Severity       string  `json:"severity"`
	ActionRequired *string `json:"action_required,omitempty"`
}

// typed returns an empty message of the type that the contracts give a subject.
func typed(subject string) any {
	switch subject {
	case "agent.voice.track.published":
		return &TrackPublished{}
	case "agent.voice.track.unpublished":
		return &TrackUnpublished{}
	case "agent.voice.session.started":
		return &SessionStarted{}
	case "agent.voice.session.ended":
		return &SessionEnded{}
	case "agent.brain.request":
		return &BrainRequest{}
	case "agent.brain.response":
		return &BrainResponse{}
	case "agent.brain.error":
		return &BrainError{}
	case "agent.tts.request":
		return &TTSRequest{}
	case "agent.tts.completed":
		return &TTSCompleted{}
	case "system.health.heartbeat":
		return &Heartbeat{}
	case "system.service.error":
		return &ServiceError{}
	}
	return nil
}
