//! One turn of a worker: parse, look up, rewrite, dispatch.
