package sqlstore

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/go-sql-driver/mysql"
)

var errDSN = errors.New("sqlstore: dsn cannot be read: want user:password@tcp(host:port)/database, or " +
	"mysql://user:password@host:port/database, where what is special in the password is percent-encoded (@ as %40)")

// ParseDSN reads a DSN of a MySQL database in the go-sql-driver's form, or as
// a URL, "mysql://user:password@host:port/database". What cannot be read may be
// the password, at any place: errors show none of it, but for parameters behind
// a DSN that is right otherwise.
func ParseDSN(dsn string) (*mysql.Config, error) {
	if strings.HasPrefix(dsn, "mysql://") {
		u, err := url.Parse(dsn)
		if err != nil || u.Fragment != "" {
			return nil, errDSN
		}
		password, _ := u.User.Password()
		addr := net.JoinHostPort(cmp.Or(u.Hostname(), "127.0.0.1"), cmp.Or(u.Port(), "3306"))
		name := url.PathEscape(strings.TrimPrefix(u.Path, "/"))
		dsn = fmt.Sprintf("%s:%s@tcp(%s)/%s?%s", u.User.Username(), password, addr, name, u.RawQuery)
	}
	name := strings.LastIndexByte(dsn, '/') + 1
	base, _, _ := strings.Cut(dsn[name:], "?")
	conf, err := mysql.ParseDSN(dsn[:name] + base)
	switch {
	case err != nil || strings.ContainsAny(conf.DBName, "/@()"):
		return nil, errDSN
	case conf.DBName == "":
		return nil, errors.New("sqlstore: dsn names no database: put its name behind the last /")
	}
	if conf, err = mysql.ParseDSN(dsn); err != nil {
		return nil, fmt.Errorf("sqlstore: dsn has wrong parameters: %w", err)
	}
	return conf, nil
}
