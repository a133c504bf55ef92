package binlog

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
)

// position is a place in the log between two transactions.
type position struct {
	flavor string
	gtid   mysql.GTIDSet // all that is before; nil on a MySQL without GTIDs
	at     mysql.Position
	when   time.Time // of the transaction before, by the server's clock, in seconds
}

// positionText is a position as it is stored.
type positionText struct {
	Flavor string `json:"flavor"`
	GTID   string `json:"gtid,omitempty"`
	File   string `json:"file"`
	Pos    uint32 `json:"pos"`
	When   int64  `json:"when"` // seconds since 1970
}

func (p position) text() (string, error) {
	t := positionText{Flavor: p.flavor, File: p.at.Name, Pos: p.at.Pos, When: p.when.Unix()}
	if p.gtid != nil {
		t.GTID = p.gtid.String()
	}
	b, err := json.Marshal(t)
	return string(b), err
}

func parsePosition(text string) (position, error) {
	var t positionText
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return position{}, fmt.Errorf("binlog: a stored position is damaged: %q: %w", text, err)
	}
	p := position{flavor: t.Flavor, at: mysql.Position{Name: t.File, Pos: t.Pos}, when: time.Unix(t.When, 0)}
	if t.GTID == "" && t.Flavor != mysql.MariaDBFlavor {
		return p, nil
	}
	set, err := mysql.ParseGTIDSet(t.Flavor, t.GTID)
	if err != nil {
		return position{}, fmt.Errorf("binlog: a stored position is damaged: GTIDs %q: %w", t.GTID, err)
	}
	p.gtid = set
	return p, nil
}

// String is for people.
func (p position) String() string {
	if p.gtid == nil {
		return p.at.String()
	}
	return fmt.Sprintf("GTID %s, %s", p.gtid, p.at)
}

func (p position) clone() position {
	if p.gtid != nil {
		p.gtid = p.gtid.Clone()
	}
	return p
}

// covers tells whether everything before other is before p, too.
func (p position) covers(other position) bool {
	if p.gtid != nil && other.gtid != nil {
		return p.gtid.Contain(other.gtid)
	}
	return p.at.Compare(other.at) >= 0
}

// has tells whether p is behind a transaction: by its GTID, or, without, by its end.
func (p position) has(id mysql.GTIDSet, end mysql.Position) bool {
	if p.gtid != nil && id != nil {
		return p.gtid.Contain(id)
	}
	return p.at.Compare(end) >= 0
}

// earliest is the one from which all the others can be reached.
func earliest(all []position) position {
	first := all[0]
	for _, p := range all[1:] {
		if !p.covers(first) {
			first = p
		}
	}
	return first
}
