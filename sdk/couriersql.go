package sdk

import "github.com/amends-dev/amends/outbox"

// courierSQL are the statements of a Courier. A place without a body is that of
// an undecided message.
type courierSQL struct {
	create []string
	count  string // the places of a key, up to a limit
	take   string
	decide string
	leave  string
	forget string
	keys   string
	places string
	remove string
}

const (
	courierCount  = `SELECT COUNT(*) FROM (SELECT place FROM amends_courier WHERE msg_key = ? LIMIT ?) AS waiting`
	courierTake   = `INSERT INTO amends_courier (gid, branch, msg_key) VALUES (?, ?, ?)`
	courierDecide = `UPDATE amends_courier SET body = ? WHERE gid = ? AND branch = ?`
	courierLeave  = `DELETE FROM amends_courier WHERE gid = ? AND branch = ?`
	courierForget = `DELETE FROM amends_courier WHERE gid = ? AND body IS NULL`
	courierKeys   = `SELECT DISTINCT msg_key FROM amends_courier WHERE gid = ? AND body IS NULL ORDER BY msg_key`
	courierPlaces = `SELECT place, body FROM amends_courier WHERE msg_key = ? ORDER BY place LIMIT ?`
	courierRemove = `DELETE FROM amends_courier WHERE msg_key = ? AND place <= ?`

	courierMySQL = `CREATE TABLE IF NOT EXISTS amends_courier (
place BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, gid VARBINARY(320) NOT NULL, branch VARBINARY(128) NOT NULL,
msg_key VARBINARY(1200) NOT NULL, body LONGBLOB, UNIQUE KEY (gid, branch), KEY (msg_key, place)) ENGINE = InnoDB`
	courierSQLite = `CREATE TABLE IF NOT EXISTS amends_courier (
place INTEGER PRIMARY KEY AUTOINCREMENT, gid BLOB NOT NULL, branch BLOB NOT NULL,
msg_key BLOB NOT NULL, body BLOB, UNIQUE (gid, branch))`
	courierSQLiteIndex = `CREATE INDEX IF NOT EXISTS amends_courier_key ON amends_courier (msg_key, place)`
)

func courierSQLOf(d *outbox.Dialect) courierSQL {
	s := courierSQL{
		create: []string{courierSQLite, courierSQLiteIndex},
		count:  courierCount, take: courierTake, decide: courierDecide, leave: courierLeave,
		forget: courierForget, keys: courierKeys, places: courierPlaces, remove: courierRemove,
	}
	if d == outbox.MySQL {
		s.create = []string{courierMySQL}
		s.places += " FOR UPDATE" // the transaction's snapshot may be older than its lock
	}
	return s
}
