// Command linearizability reads a history of reads and writes as a JSON array from standard input, and reports
// for each key whether the operations are linearizable: whether each of them could have taken effect at one
// instant between its call and its return, with every read returning the value written last.
//
// It prints one JSON object: the verdict and, unless it is "linearizable", the first key without that verdict.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// operation is a read or a write of one key.
type operation struct {
	Client int    `json:"client"`
	Kind   string `json:"kind"`
	Key    string `json:"key"`
	// Value is what was written or read. It is null for a read that found no such key.
	Value *string `json:"value"`
	// Called and Returned are in nanoseconds of one clock.
	Called   int64 `json:"called"`
	Returned int64 `json:"returned"`
}

// register is the state of a key.
type register struct {
	exists bool
	value  string
}

type verdict struct {
	Verdict string `json:"verdict"`
	Key     string `json:"key"`
}

var registers = porcupine.Model{
	Init: func() interface{} { return register{} },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		if input.(string) == "write" {
			return true, output
		}
		return state == output, state
	},
	DescribeOperation: func(input, output interface{}) string {
		content := output.(register)
		if !content.exists {
			return fmt.Sprintf("%s: no such key", input)
		}
		return fmt.Sprintf("%s: %s", input, content.value)
	},
}

func main() {
	limit := flag.Duration("timeout", time.Minute, "time limit for each key")
	page := flag.String("visualize", "", "HTML file for the history of a key that is not linearizable")
	flag.Parse()
	var history []operation
	if err := json.NewDecoder(os.Stdin).Decode(&history); err != nil {
		fail("standard input is not a JSON array of operations: %v", err)
	}
	found := check(history, *limit, *page)
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fail("cannot write the verdict: %v", err)
	}
}

func check(history []operation, limit time.Duration, page string) verdict {
	byKey := map[string][]porcupine.Operation{}
	for _, each := range history {
		byKey[each.Key] = append(byKey[each.Key], converted(each))
	}
	keys := make([]string, 0, len(byKey))
	for key := range byKey {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		result, info := porcupine.CheckOperationsVerbose(registers, byKey[key], limit)
		if result == porcupine.Ok {
			continue
		}
		if page != "" {
			if err := porcupine.VisualizePath(registers, info, page); err != nil {
				fail("cannot write %s: %v", page, err)
			}
		}
		if result == porcupine.Unknown {
			return verdict{"timed out", key}
		}
		return verdict{"not linearizable", key}
	}
	return verdict{"linearizable", ""}
}

func converted(each operation) porcupine.Operation {
	if each.Kind != "read" && each.Kind != "write" {
		fail("the kind of an operation is %q, but must be \"read\" or \"write\"", each.Kind)
	}
	content := register{}
	if each.Value != nil {
		content = register{true, *each.Value}
	}
	return porcupine.Operation{
		ClientId: each.Client,
		Input:    each.Kind,
		Call:     each.Called,
		Output:   content,
		Return:   each.Returned,
	}
}

func fail(format string, values ...interface{}) {
	fmt.Fprintf(os.Stderr, "linearizability: "+format+"\n", values...)
	os.Exit(2)
}
