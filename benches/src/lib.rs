//! Benches behind the figures in README.
