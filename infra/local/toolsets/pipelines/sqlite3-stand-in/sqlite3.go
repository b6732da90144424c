// Package sqlite3 stands in for github.com/mattn/go-sqlite3, which is C. KFP's API server runs on MySQL here and asks this
// package for nothing but the type of an error that a MySQL never gives; with the stand-in it builds as a static binary,
// without a C compiler and without compiling its dependencies a second time for cgo.
package sqlite3

// ErrNo is a result code of SQLite.
type ErrNo int

// ErrConstraint is SQLITE_CONSTRAINT.
const ErrConstraint = ErrNo(19)

// Error is an error that SQLite reports.
type Error struct {
	Code ErrNo
}

func (e Error) Error() string {
	return "SQLite is not part of this build"
}
