//! Rings on memory: pcap files, virtual time, seeded faults.
