//! A report with every kind of row, for tests.

use super::*;

pub(crate) fn report() -> StatusReport {
    StatusReport {
        router: RouterStatus {
            name: "edge-1".into(),
            version: "0.1.0".into(),
            uptime_s: 93_784,
            configuration_generation: 3,
            poll: "busy".into(),
            batch_frames: 64,
            rx_ring_entries: 2048,
            tx_ring_entries: 2048,
            tsc_hz: 2_600_000_000,
        },
        interfaces: vec![
            InterfaceStatus {
                name: "ens5".into(),
                role: "outside".into(),
                link: "up".into(),
                driver: "ena".into(),
                xdp_mode: "native".into(),
                bind_mode: "zero-copy".into(),
                queues: 2,
                mtu: 3498,
                mac: "02:00:00:00:00:01".into(),
                rx_packets: 12_345_678_901,
                rx_bytes: 15_802_469_000_000,
                tx_packets: 9_876_543_210,
                tx_bytes: 1_234_567_890_123,
                originated: 12,
                originated_lost: 3,
                originated_to_kernel: 2,
                fragmented: 5,
                fragments_created: 13,
                handed_over: 11,
                icmp_limited: 7,
                delivered: 400,
                to_owner: 300,
                decapsulated: 200,
                forwarded: 12_345_678_000,
                to_kernel: 500,
                consumed: 100,
                held: 1,
                drops: [
                    ("ttl_expired".into(), 200),
                    ("no_route".into(), 100),
                    ("source_route".into(), 0),
                ]
                .into(),
                rx_rate_pps: 3_120_000.0,
                tx_rate_pps: 2_980_000.0,
            },
            InterfaceStatus { name: "ens6".into(), role: "inside".into(), ..Default::default() },
        ],
        workers: vec![WorkerStatus {
            id: 0,
            core: Some(2),
            queues: 2,
            turns: 987_654_321,
            long_turns: [(81_920, 40), (4_194_304, 2)]
                .map(|(below_ns, turns)| LongTurns { below_ns, turns })
                .into(),
            busy_fraction: 0.423,
            batch_mean: 17.25,
            frames: FrameCounts {
                free: 9_000,
                receiving: 6_000,
                transmitting: 1_300,
                held: 84,
                total: 16_384,
            },
            kicks: 1_234,
            busy_turns: 417_000_000,
            timed_turns: 13_000_000,
            timed_packets: 226_000_000,
            stages: [("parse", 4_520_000_000), ("rewrite", 2_260_000_000)]
                .map(|(stage, clocks)| StageClocks { stage: stage.to_owned(), clocks })
                .into(),
        }],
        classifier: vec![ClassifierCount {
            interface: "ens5".into(),
            reason: "arp".into(),
            packets: 77,
        }],
        xdp: vec![XdpStatistics {
            interface: "ens5".into(),
            queue: 1,
            tx_ring_empty_descs: 5,
            ..Default::default()
        }],
        sharing: SharingStatus {
            egress: 1,
            slices: 1,
            owners: vec![OwnerStatus {
                owner: "node-a".into(),
                is_here: false,
                state: "owned".into(),
                slices: 1,
            }],
            ..SharingStatus::default()
        },
        slices: vec![SliceStatus {
            name: "web".into(),
            egress: "192.0.2.1".into(),
            ports: "1024-2047".into(),
            owner: "node-a".into(),
            state: "owned".into(),
        }],
        egress: vec![EgressStatus {
            prefix: "192.0.2.0/24".into(),
            slices: 31,
            default: "drop".into(),
        }],
        nodes: vec![NodeStatus {
            name: "node-a".into(),
            address: "10.0.0.2".into(),
            next_hop_state: "resolved".into(),
        }],
        neighbors: vec![NeighborStatus {
            address: "10.0.0.2".into(),
            interface: "ens6".into(),
            mac: Some("02:00:00:00:00:02".into()),
            state: "reachable".into(),
            managed: true,
        }],
        routes: RouteCounts {
            v4: 1_190_000,
            v6: 280_000,
            unexpressible: 2,
            unexpressible_by_reason: vec![ReasonCount { reason: "throw".into(), prefixes: 2 }],
            by_source: vec![
                SourceCount { source: "kernel".into(), v4: 1_189_990, v6: 279_995 },
                SourceCount { source: "static".into(), v4: 10, v6: 5 },
            ],
            withdrawn: 0,
            groups: 40,
            rib_bytes: 80 << 20,
            fib4_bytes: 46 << 20,
            fib6_bytes: 1_300_000,
            mirror: MirrorStatus {
                overruns: 1,
                resyncs: 3,
                malformed: 0,
                route_changes: 1_470_000,
                publications: 812,
                last_delay_us: 9_000,
                max_delay_us: 800_000,
                last_build_us: 2_100,
            },
        },
        punt: PuntStatus { written: 41, refused: 2 },
        actions: vec![
            ActionStatus {
                kind: "class".into(),
                name: "voice".into(),
                packets: 20_000,
                bytes: 4_000_000,
                ..ActionStatus::default()
            },
            ActionStatus {
                kind: "egress-tag".into(),
                name: "cheap".into(),
                packets: 70,
                bytes: 7000,
                missed_packets: 5,
                missed_bytes: 500,
                usable: Some(false),
            },
        ],
        plugins: vec![serde_json::json!({
            "name": "filter", "hook": "ingress", "generation": 4,
            "price": { "cycles_per_packet": 14.5, "cores": 0.25 },
            "refused": 3, "last_refusal": { "seconds_ago": 12, "reason": "the manifest is not valid" },
            "total": {
                "packets": 1_000_000, "drops": 12, "continued": 999_988, "traps": 0, "unjudged": 0,
                "flow_hits": 700, "flow_misses": 300, "flow_evictions": 4,
                "states_taken": 2, "states_lost": 1,
                "counters": { "rule-hits[3]": 12 }, "gauges": { "flows": 250 },
                "cycles_per_packet": 11.25, "packet_cycles_p50": 10, "packet_cycles_p99": 40,
            },
            "workers": [{
                "call_cycles_p50": 640, "call_cycles_p99": 2_560,
                "packet_cycles_p50": 10, "packet_cycles_p99": 40,
            }],
        })],
        reloads: ReloadStatus {
            ok: 2,
            refused: 1,
            last_error: Some("sluice.toml: slices.web.ports: overlaps slice api".into()),
            gone_back: 1,
        },
        confirmation: Some(ConfirmationStatus { seconds_left: 42, back_to: 2, last_error: None }),
    }
}
