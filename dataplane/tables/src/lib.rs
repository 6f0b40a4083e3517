//! Forwarding tables and the immutable snapshot that workers read.
