//! The slice table: whether an address is shared, and whose a port is.

use benches::destinations::COUNT;
use benches::random::Random;
use criterion::Criterion;
use ipnet::Ipv4Net;
use tables::{EgressBlock, NodeId, Owner, SliceHit, SliceId, SliceKey, SliceRange, SliceTable};

use super::{BATCHES, bench_batches, group};

/// `addresses` shared addresses from 10.0.0.0 on, each with 31 slices of 2,048 ports.
fn shared(addresses: u32, node: impl Fn(u32, u16) -> u16) -> SliceTable {
    let blocks = (0..addresses).map(|n| EgressBlock {
        prefix: Ipv4Net::new_assert((0x0a00_0000 + n).into(), 32).into(),
        ranges: (0..31)
            .map(|slice| SliceRange {
                first_port: 2_048 + slice * 2_048,
                last_port: 2_048 + slice * 2_048 + 2_047,
                slice: SliceId(n * 31 + u32::from(slice)),
                owner: Owner::Node(NodeId(node(n, slice))),
            })
            .collect(),
        rest: Owner::DropByDefault,
        portless: Owner::DropByDefault,
    });
    SliceTable::build(blocks.collect()).expect("the table fits")
}

pub(super) fn slices(criterion: &mut Criterion) {
    for (name, addresses, table) in [
        ("4 addresses", 4, shared(4, |_, slice| slice)),
        ("65536 alike", 65_536, shared(65_536, |_, slice| slice)),
        ("65536 unlike", 65_536, shared(65_536, |n, slice| n as u16 ^ slice)),
    ] {
        let mut random = Random(2);
        let owned: Vec<(u32, u16)> = (0..COUNT)
            .map(|_| (0x0a00_0000 + random.below(addresses) as u32, random.next() as u16))
            .collect();
        let ordinary: Vec<(u32, u16)> =
            (0..COUNT).map(|_| (random.next() as u32, random.next() as u16)).collect();
        for (kind, packets) in [("owned", &owned), ("ordinary", &ordinary)] {
            let mut group = group(criterion, &format!("slices/{kind}"));
            let mut keys = Vec::new();
            for batch in BATCHES {
                bench_batches(
                    &mut group,
                    name,
                    batch,
                    packets,
                    SliceHit::MISS,
                    |packets, results| {
                        // As the data plane does: shared addresses are picked out, and their ports
                        // looked up together.
                        keys.clear();
                        keys.extend(packets.iter().filter_map(|&(address, port)| {
                            Some(SliceKey { egress: table.egress4(address)?, port })
                        }));
                        table.lookup_batch(&keys, &mut results[..keys.len()]);
                    },
                );
            }
            group.finish();
        }
    }
}
