package outbox

import (
	"bytes"
	"context"
	"database/sql"
	"time"
)

// ahead is a page that was read while the one before it was published.
type ahead struct {
	after int64
	pass  int // of the window
	page  []row
}

// next answers the page behind the cursor. One that was read ahead is as good as one
// that is read now, unless the cursor went elsewhere: late asks what appeared before it.
func (p *partition) next(ctx context.Context) ([]row, error) {
	a := p.ahead
	p.ahead = nil
	if a != nil && a.after == p.w.cursor && a.pass == p.w.pass {
		return a.page, nil
	}
	if err := p.settleDue(ctx); err != nil { // what was published is not read again
		return nil, err
	}
	began := time.Now()
	page, err := p.read(ctx, p.w.cursor)
	p.load.busy += time.Since(began)
	return page, err
}

// late asks what has appeared behind the cursor, where there were gaps. It has
// to come after the read of a page: what that page shows was then already there.
func (p *partition) late(ctx context.Context) (bool, error) {
	after, upTo := p.w.unsure()
	if after >= upTo {
		return false, nil
	}
	rows, err := p.r.db.QueryContext(ctx, p.sql.ids, after, upTo)
	if err != nil {
		return false, err
	}
	defer rows.Close()       // its error is in rows.Err
	gone := map[int64]bool{} // published, and soon to be deleted
	for _, id := range p.pending.remove {
		gone[id] = true
	}
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return false, err
		}
		if !gone[id] {
			ids = append(ids, id)
		}
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	if p.w.late(ids) {
		p.r.count.late.Add(1)
		return true, nil
	}
	return false, nil
}

// read reads a page behind an id.
func (p *partition) read(ctx context.Context, after int64) ([]row, error) {
	return p.readPage(ctx, p.sql.read, rowReader(), after, p.r.cfg.Batch)
}

func (p *partition) readPage(
	ctx context.Context, query string, scan func(scanner) (row, error), args ...any,
) (page []row, err error) {
	rows, err := p.r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() // its error is in rows.Err
	weight := 0
	for weight < pageBytes && rows.Next() {
		r, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		weight += r.msg.size()
		page = append(page, r)
	}
	return page, rows.Err()
}

// rowReader reads rows, one after the other, into the same places. more are those of
// the columns behind a row's own.
func rowReader(more ...any) func(scan scanner) (row, error) {
	var number, created int64
	var id, topic, key, body, headers, idem sql.RawBytes
	dest := append([]any{&number, &id, &topic, &key, &body, &headers, &idem, &created}, more...)
	last := "" // most rows of a page have the same topic
	return func(scan scanner) (row, error) {
		if err := scan(dest...); err != nil {
			return row{}, err
		}
		if last != string(topic) {
			last = string(topic)
		}
		r := row{id: number, headers: bytes.Clone(headers)}
		r.msg = Message{
			ID: string(id), Topic: last, Key: string(key), Body: bytes.Clone(body),
			IdempotencyKey: string(idem), CreatedAt: time.UnixMicro(created),
		}
		r.err = r.msg.unpack(r.headers)
		return r, nil
	}
}
