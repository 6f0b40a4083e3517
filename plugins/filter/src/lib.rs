//! Ordered rules on prefixes, ports, protocol and TCP flags.
