//! AF_XDP sockets, UMEM and the XDP classifier.
