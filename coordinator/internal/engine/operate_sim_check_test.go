package engine

import (
	"encoding/json"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

// check compares the trails with what operators were told.
func (s *sim) check() {
	for _, gid := range s.gids {
		times := map[string]int{}
		s.checkWork(gid)
		for _, ev := range checkTrail(s.t, s.st, gid) {
			var d detail
			if err := json.Unmarshal(ev.Data, &d); err != nil {
				s.t.Fatal(err)
			}
			times[d.Request]++
		}
		delete(times, "")
		for id, n := range times {
			if n > 1 || s.denied[id] || !s.acked[id] && !s.sent[id] && s.bulkNamed(id) == nil {
				s.t.Errorf("%q: request %q is %d times in the trail; acknowledged %v, refused %v",
					gid, id, n, s.acked[id], s.denied[id])
			}
			if b := s.bulkNamed(id); b != nil {
				s.acted[id]++
				if namespaceOf(gid) != *b.Query.Namespace {
					s.t.Errorf("%q: bulk %q is of another namespace", gid, b.ID)
				}
			}
			delete(s.acked, id)
		}
		if rec, err := s.st.Load(s.t.Context(), gid); err != nil || rec.Stalled || rec.Paused {
			s.t.Errorf("%q has ended stalled (%v) or paused (%v): %v", gid, rec.Stalled, rec.Paused, err)
		}
	}
	for id := range s.acked {
		s.t.Errorf("request %q was acknowledged and is in no trail", id)
	}
	for _, b := range s.bulks {
		rec, err := s.st.Load(s.t.Context(), b.ID)
		if err != nil {
			s.t.Fatal(err)
		}
		_, p, err := (&Engine{}).BulkOf(rec)
		_, id, _ := wire.SplitBulk(b.ID)
		cancelled := txn.State(rec.State) == txn.RolledBack // what its last page did is not counted
		if n := s.acted["bulk/"+id]; err != nil || p.Failed > 0 || p.Acted > n || p.Acted < n && !cancelled {
			s.t.Errorf("bulk %q says %+v, %v; it acted on %d", b.ID, p, err, n)
		}
		checkTrail(s.t, s.st, b.ID)
	}
}

func (s *sim) bulkNamed(request string) *Bulk {
	for i := range s.bulks {
		if _, id, _ := wire.SplitBulk(s.bulks[i].ID); "bulk/"+id == request {
			return &s.bulks[i]
		}
	}
	return nil
}

// released notes that a transaction may go on.
func (s *sim) released(gid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, gid)
}

func (s *sim) asked(c Command) { s.note(s.sent, c) }

func (s *sim) refused(c Command) { s.note(s.denied, c) }

func (s *sim) note(in map[string]bool, c Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.acked[c.RequestID] {
		in[c.RequestID] = true
	}
}

func (s *sim) known(c Command) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked[c.RequestID]
}

// acknowledged notes what an operator was told.
func (s *sim) acknowledged(by *simNode, c Command, rec store.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if txn.State(rec.State).Finished() != !rec.FinishedAt.IsZero() {
		s.t.Errorf("%q is %v, finished at %v", rec.GID, txn.State(rec.State), rec.FinishedAt)
	}
	if txn.State(rec.State).Finished() || rec.Paused {
		s.held[c.GID] = ack{by: by, at: time.Now()}
	}
	if c.ValidateOnly {
		if !s.acked[c.RequestID] {
			s.denied[c.RequestID] = true
		}
		return
	}
	s.acked[c.RequestID] = true
	delete(s.denied, c.RequestID)
}
