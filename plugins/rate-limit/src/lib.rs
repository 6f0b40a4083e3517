//! Token bucket for each source prefix.
