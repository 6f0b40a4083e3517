//! Kernel mirror, publication, metrics and the control socket.
