# Types for framer.py when Cython compiles it.  Lengths are Py_ssize_t: four hostile bytes must not turn negative.
cimport cython


cdef class Framer:
    cdef public bytearray buffer
    cdef public bytearray kept
    cdef public Py_ssize_t mark
    cdef public Py_ssize_t position
    cdef public Py_ssize_t end
    cdef public Py_ssize_t passing
    cdef public int type
    cdef public Py_ssize_t length
    cdef public Py_ssize_t body_start
    cdef public Py_ssize_t body_stop

    cpdef feed(self, bytearray buffer, Py_ssize_t start, Py_ssize_t stop)

    @cython.locals(
        buffer=bytearray,
        position=Py_ssize_t,
        end=Py_ssize_t,
        step=Py_ssize_t,
        size=Py_ssize_t,
        kind=int,
    )
    cpdef int run(self, bytes watched) except -1

    cpdef bint take(self, Py_ssize_t limit) except -1
    cpdef bint head(self, Py_ssize_t count) except -1

    @cython.locals(at_hand=Py_ssize_t, size=Py_ssize_t)
    cpdef bint startup(self, Py_ssize_t limit) except -1

    cpdef bytes body(self)

    @cython.locals(here=Py_ssize_t)
    cpdef pass_on(self)

    cpdef behead(self, Py_ssize_t count)
    cpdef drop(self)
    cpdef passed(self)
    cpdef keep(self)
    cpdef bint at_boundary(self) except -1
