// A service of the platform in Go, with nats.go and encoding/json as they come.
//
//	peer URL read COUNT       prints COUNT messages on agent.> and system.>, as lines of JSON
//	peer URL write FOLDER     publishes the golden messages of FOLDER, each through its Go type
//	peer URL ask FILE         sends FILE as a request to agent.brain.request, prints the reply
//	peer URL answer FILE      answers one request on agent.brain.request with FILE
//
// It says "ready" on a line of its own once its subscription is with the server.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const patience = 20 * time.Second

// Seen is one message as this peer saw it: its bytes, and what its Go type makes of them again.
type Seen struct {
	Subject string              `json:"subject"`
	Headers map[string][]string `json:"headers"`
	Body    []byte              `json:"body"`
	Again   []byte              `json:"again"`
}

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: peer URL read|write|ask|answer ARGUMENT"))
	}
	connection, err := nats.Connect(os.Args[1], nats.Name("go-peer"))
	fail(err)
	defer connection.Close()
	modes := map[string]func(*nats.Conn, string) error{
		"read": read, "write": write, "ask": ask, "answer": answer,
	}
	mode, known := modes[os.Args[2]]
	if !known {
		fail(fmt.Errorf("no mode %q", os.Args[2]))
	}
	fail(mode(connection, os.Args[3]))
	fail(connection.Flush())
}

func read(connection *nats.Conn, argument string) error {
	count, err := strconv.Atoi(argument)
	if err != nil {
		return err
	}
	arrived := make(chan *nats.Msg, 1024)
	for _, pattern := range []string{"agent.>", "system.>"} {
		if _, err := connection.ChanSubscribe(pattern, arrived); err != nil {
			return err
		}
	}
	if err := ready(connection); err != nil {
		return err
	}
	deadline := time.After(patience)
	for ; count > 0; count-- {
		select {
		case message := <-arrived:
			if err := show(message); err != nil {
				return err
			}
		case <-deadline:
			return fmt.Errorf("%d messages did not arrive", count)
		}
	}
	return nil
}

func write(connection *nats.Conn, folder string) error {
	paths, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		golden, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		subject := strings.TrimSuffix(filepath.Base(path), ".json")
		body, err := again(subject, golden)
		if err != nil {
			return err
		}
		if !bytes.Equal(body, golden) {
			return fmt.Errorf("%s: Go writes\n%s\nand not\n%s", subject, body, golden)
		}
		if err := connection.Publish(subject, body); err != nil {
			return err
		}
	}
	return nil
}

func ask(connection *nats.Conn, path string) error {
	body, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	reply, err := connection.Request("agent.brain.request", body, patience)
	if err != nil {
		return err
	}
	reply.Subject = "agent.brain.response"
	return show(reply)
}

func answer(connection *nats.Conn, path string) error {
	body, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	workers, err := connection.QueueSubscribeSync("agent.brain.request", "sherlock_workers")
	if err != nil {
		return err
	}
	if err := ready(connection); err != nil {
		return err
	}
	request, err := workers.NextMsg(patience)
	if err != nil {
		return err
	}
	if err := request.Respond(body); err != nil {
		return err
	}
	return show(request)
}

// again reads a message into its Go type, strictly, and writes it from there.
func again(subject string, body []byte) ([]byte, error) {
	message := typed(subject)
	if message == nil {
		return nil, fmt.Errorf("no contract for %q", subject)
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(message); err != nil {
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	return json.Marshal(message)
}

func show(message *nats.Msg) error {
	rewritten, err := again(message.Subject, message.Data)
	if err != nil {
		return err
	}
	line, err := json.Marshal(Seen{message.Subject, message.Header, message.Data, rewritten})
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(line))
	return err
}

func ready(connection *nats.Conn) error {
	if err := connection.Flush(); err != nil {
		return err
	}
	_, err := fmt.Println("ready")
	return err
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
