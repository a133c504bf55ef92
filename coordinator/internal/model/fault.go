package model

import "fmt"

// Fault is a mistake that is planted into a model, to see that it is found.
type Fault uint8

// The faults. Those from DeleteBeforeAck on are of the Relay model.
const (
	None               Fault = iota
	NoEpochCheck             // the store takes the write of a coordinator whose shard is another's
	OverwriteLater           // a delayed repeat of a write replaces what was written after it
	ActBeforeDurable         // calls go out before the state that asks for them is stored
	AckBeforeDurable         // a start or commit is acknowledged before it is stored
	ReadBeforeLease          // what was read before the shard was taken is believed
	HandoverSameEpoch        // who is given a shard has the epoch of who gave it
	UndoOnlyDone             // what refused, or whose outcome is unknown, is not undone
	NoTombstone              // an undo that comes first leaves nothing behind
	NoClaim                  // a repeated call runs again
	MarkBeforeWork           // the claim is committed apart from the work, and before it
	PresumeNothing           // what may have been called ahead of what was stored is not undone
	PivotAhead               // any step is called ahead of what is stored, the pivot, too
	DeleteBeforeAck          // a row is deleted when it was sent
	Watermark                // the relay goes on behind the highest id it has seen
	MarkBeforePublish        // the note that a row is in the log is made when it was sent
	Overtake                 // behind a message that failed, the next of its key is sent
	NoRowLock                // writers of one key do not wait for each other
	OffsetBeforeWork         // the consumer commits its offset when it has read a message
	ConsumerMarksFirst       // the consumer's claim is committed before the work
	NoInbox                  // the consumer does not look whether it has handled a message
)

var faultNames = [...]string{
	"none", "no epoch check", "overwrite later", "act before durable", "ack before durable", "read before lease",
	"handover same epoch", "undo only done", "no tombstone", "no claim", "mark before work",
	"presume nothing", "pivot ahead", "delete before ack", "watermark",
	"mark before publish", "overtake", "no row lock", "offset before work", "consumer marks first", "no inbox",
}

// String returns the name, for example "no tombstone".
func (f Fault) String() string {
	if int(f) < len(faultNames) {
		return faultNames[f]
	}
	return fmt.Sprintf("fault(%d)", uint8(f))
}
