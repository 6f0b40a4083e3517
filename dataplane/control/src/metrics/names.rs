//! The one table of metrics: it makes the setters, the `# HELP` lines and the documentation.

use std::fmt::Write as _;

use metrics::{Label, Unit, describe_counter, describe_gauge};

/// Whether a metric only grows (until the router restarts) or shows a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Grows until the router restarts.
    Counter,
    /// A state of the moment.
    Gauge,
}

/// One row of the table of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name that Prometheus sees.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: MetricKind,
    /// The labels of each of its series.
    pub labels: &'static [&'static str],
    /// What it counts, in one sentence with its unit.
    pub help: &'static str,
}

/// A counter with `N` labels.
pub(super) struct Counter<const N: usize> {
    name: &'static str,
    labels: [&'static str; N],
}

impl<const N: usize> Counter<N> {
    /// Sets the series with these label values. A value below an earlier one has no effect.
    pub(super) fn set(&self, values: [&str; N], count: u64) {
        metrics::counter!(self.name, labels(self.labels, values)).absolute(count);
    }
}

/// A gauge with `N` labels.
pub(super) struct Gauge<const N: usize> {
    name: &'static str,
    labels: [&'static str; N],
}

impl<const N: usize> Gauge<N> {
    /// Sets the series with these label values.
    pub(super) fn set(&self, values: [&str; N], value: f64) {
        metrics::gauge!(self.name, labels(self.labels, values)).set(value);
    }

    /// Sets the series with these label values to a count.
    // Counts of things that a machine holds are far below 2^53, where f64 is exact.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn set_count(&self, values: [&str; N], count: u64) {
        self.set(values, count as f64);
    }
}

fn labels<const N: usize>(names: [&'static str; N], values: [&str; N]) -> Vec<Label> {
    names.into_iter().zip(values).map(|(name, value)| Label::new(name, value.to_owned())).collect()
}

macro_rules! metric_table {
    ($($kind:ident $constant:ident $name:literal [$($label:literal),*] $help:literal)*) => {
        $(pub(super) const $constant: $kind<{ count_labels(&[$($label),*]) }> =
            $kind { name: $name, labels: [$($label),*] };)*

        /// All metrics, in the order of the documentation.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: MetricKind::$kind,
            labels: &[$($label),*],
            help: $help,
        }),*];
    };
}

/// The number of labels, as a constant.
const fn count_labels(labels: &[&str]) -> usize {
    labels.len()
}

metric_table! {
    Gauge INFO "sluice_info" ["name", "version", "poll"]
        "Always 1; the labels name the node, the program's version and the way of polling."
    Gauge UPTIME "sluice_uptime_seconds" []
        "Seconds since the router's start."
    Gauge CONFIGURATION "sluice_configuration_generation" []
        "Number of the configuration in force."
    Counter RELOADS "sluice_reloads_total" ["result"]
        "Reloads of the configuration, by result: ok or refused."
    Gauge CONFIRMATION_PENDING "sluice_confirmation_pending" []
        "1 while the configuration in force waits for its confirmation, else 0."
    Gauge CONFIRMATION_LEFT "sluice_confirmation_seconds_left" []
        "Seconds until the router goes back to the configuration before; 0 when none waits."
    Counter GONE_BACK "sluice_configurations_gone_back_total" []
        "Configurations that were not confirmed, so that the router went back."

    Gauge INTERFACE "sluice_interface_info" ["interface", "role", "driver", "xdp_mode", "bind_mode"]
        "Always 1; the labels tell how the interface is attached."
    Gauge LINK_UP "sluice_interface_up" ["interface"]
        "1 while the interface can send: there, set up and with a carrier; else 0."
    Gauge QUEUES "sluice_interface_queues" ["interface"]
        "Queues of the interface, each with a socket."
    Gauge MTU "sluice_interface_mtu_bytes" ["interface"]
        "MTU in bytes."
    Counter RX_PACKETS "sluice_rx_packets_total" ["interface"]
        "Packets that workers received from the interface."
    Counter RX_BYTES "sluice_rx_bytes_total" ["interface"]
        "Bytes that workers received from the interface."
    Counter TX_PACKETS "sluice_tx_packets_total" ["interface"]
        "Packets that left through the interface."
    Counter TX_BYTES "sluice_tx_bytes_total" ["interface"]
        "Bytes that left through the interface."
    Counter ORIGINATED "sluice_originated_packets_total" ["interface"]
        "Packets that the router made and sent out of the interface; part of sluice_tx_packets_total."
    Counter ORIGINATED_LOST "sluice_originated_lost_packets_total" ["interface"]
        "Packets that the router made about those of the interface and could not send."
    Counter ORIGINATED_TO_KERNEL "sluice_originated_to_kernel_packets_total" ["interface"]
        "Packets that the router made about those of the interface and handed to the kernel."
    Counter ICMP_LIMITED "sluice_icmp_limited_total" ["interface"]
        "ICMP errors about packets of the interface that the rate limit forbade."
    Counter FRAGMENTED "sluice_fragmented_packets_total" ["interface"]
        "Packets that left through the interface in fragments that the router made."
    Counter FRAGMENTS_CREATED "sluice_fragments_created_total" ["interface"]
        "Fragments that the router made and sent out of the interface; part of sluice_tx_packets_total."
    Counter HANDED_OVER "sluice_handed_over_packets_total" ["interface"]
        "Packets received from the interface by one worker and finished by another."
    Counter DELIVERED "sluice_delivered_packets_total" ["interface"]
        "Packets received from the interface that were delivered to an owner on this machine."
    Counter TO_OWNER "sluice_to_owner_packets_total" ["interface"]
        "Packets received from the interface that were sent on to the owner of their slice."
    Counter DECAPSULATED "sluice_decapsulated_packets_total" ["interface"]
        "Packets received from the interface that came out of an owner tunnel."
    Counter PUNT "sluice_punt_packets_total" ["result"]
        "Packets given to the local kernel, by result: written or refused."
    Counter FORWARDED "sluice_forwarded_packets_total" ["interface"]
        "Packets received from the interface that left through some interface."
    Counter TO_KERNEL "sluice_to_kernel_packets_total" ["interface"]
        "Packets received from the interface that were handed to the kernel."
    Counter CONSUMED "sluice_consumed_packets_total" ["interface"]
        "Packets received from the interface that the router used up itself."
    Gauge HELD "sluice_held_packets" ["interface"]
        "Packets received from the interface that wait for a neighbor or a first fragment."
    Counter DROPS "sluice_drops_total" ["interface", "reason"]
        "Packets received from the interface that were dropped, by reason."
    Gauge RX_RATE "sluice_rx_packets_per_second" ["interface"]
        "Packets a second received from the interface, over the last second."
    Gauge TX_RATE "sluice_tx_packets_per_second" ["interface"]
        "Packets a second sent through the interface, over the last second."

    Counter CLASSIFIER "sluice_classifier_packets_total" ["interface", "reason"]
        "Packets that the classifier decided, by reason."
    Counter XDP "sluice_xdp_statistics_total" ["interface", "queue", "statistic"]
        "XDP_STATISTICS of the queue's socket, by the name in struct xdp_statistics."

    Counter TURNS "sluice_worker_turns_total" ["worker"]
        "Turns of the worker's loop."
    Counter LONG_TURNS "sluice_worker_long_turns_total" ["worker", "at_least_ns"]
        "Turns that took so many nanoseconds or more, whatever else their core did meanwhile: packets waited for as long."
    Counter KICKS "sluice_worker_kicks_total" ["worker"]
        "System calls that woke the kernel for the worker's rings."
    Gauge BUSY "sluice_worker_busy_ratio" ["worker"]
        "Part of the last second in which turns carried packets, 0 to 1."
    Gauge BATCH "sluice_worker_batch_mean" ["worker"]
        "Mean number of frames in a batch that was not empty, over the last second."
    Counter BUSY_TURNS "sluice_worker_busy_turns_total" ["worker"]
        "Turns of the worker's loop that carried packets."
    Counter STAGE_CLOCKS "sluice_worker_stage_clocks_total" ["worker", "stage"]
        "Clocks of the time stamp counter spent in the stage, in the turns that are timed."
    Counter TIMED_PACKETS "sluice_worker_timed_packets_total" ["worker"]
        "Packets of the turns that are timed: what the stages' clocks are to be divided by."
    Gauge FRAMES "sluice_worker_frames" ["worker", "place"]
        "Frames of the worker's pool by place: free, receiving, transmitting, held; and total."

    Gauge ROUTES "sluice_routes" ["family"]
        "Prefixes in the routing table, by family: ipv4 or ipv6."
    Gauge ROUTES_BY_SOURCE "sluice_routes_in_force" ["family", "source"]
        "Prefixes by family and by the source of the route in force."
    Gauge UNEXPRESSIBLE "sluice_routes_unexpressible" ["reason"]
        "Prefixes whose packets go to the kernel because the router cannot express the route, by reason."
    Gauge GROUPS "sluice_route_groups" []
        "Sets of next hops, and other things that routes lead to."
    Gauge ROUTE_BYTES "sluice_route_bytes" ["table"]
        "Bytes of the candidate routes (rib), and of what look-ups read (fib4, fib6)."
    Counter ROUTE_CHANGES "sluice_route_changes_total" []
        "Prefixes whose routes the kernel has changed."
    Counter RESYNCS "sluice_mirror_resyncs_total" []
        "Full readings of the kernel's tables."
    Counter OVERRUNS "sluice_mirror_overruns_total" []
        "Times that the kernel lost news for want of buffer; a full reading follows each."
    Counter PUBLICATIONS "sluice_publications_total" []
        "Publications of tables to workers."
    Gauge ROUTE_DELAY "sluice_route_publication_delay_seconds" []
        "From the kernel's word on a route change until workers could read it, at the last publication."
    Gauge NEIGHBORS "sluice_neighbors" ["interface", "state"]
        "Neighbors by the kernel's state of them."
    Gauge SLICES "sluice_slices" ["owner", "state"]
        "Slices by owner and state: owned, draining or none. Of many owners those with the most slices."
    Gauge SLICES_LEFT_OUT "sluice_slices_left_out" []
        "Slices that sluice_slices does not count, because more than 256 owners have some."
    Gauge OWNERS_LEFT_OUT "sluice_slice_owners_left_out" []
        "Owners without a series in sluice_slices, because there are more than 256 of them."
    Gauge EGRESS "sluice_egress_prefixes" []
        "Egress prefixes: the addresses that are shared."

    Counter ACTION_PACKETS "sluice_action_packets_total" ["kind", "name"]
        "Packets that left with a class, or by an egress tag or next hop, that plugins gave them."
    Counter ACTION_BYTES "sluice_action_bytes_total" ["kind", "name"]
        "Bytes of the IP packets of sluice_action_packets_total."
    Counter TAG_MISSED "sluice_egress_tag_missed_packets_total" ["tag"]
        "Packets with the egress tag that took their routes: none of its next hops could be used."
    Gauge USABLE "sluice_action_usable" ["kind", "name"]
        "Whether the egress tag or next hop leads anywhere: 1 or 0."

    Gauge PLUGIN_GENERATION "sluice_plugin_generation" ["plugin"]
        "Number of the plugin's version that is in force."
    Counter PLUGIN_PACKETS "sluice_plugin_packets_total" ["plugin"]
        "Packets that the plugin judged."
    Counter PLUGIN_DROPS "sluice_plugin_drops_total" ["plugin"]
        "Packets that the plugin dropped."
    Counter PLUGIN_TRAPS "sluice_plugin_traps_total" ["plugin"]
        "Traps of the plugin."
    Counter PLUGIN_REFUSED "sluice_plugin_refused_loads_total" ["plugin"]
        "Times that the plugin's files, or its tables, were refused: what ran went on."
    Gauge PLUGIN_CYCLES "sluice_plugin_cycles_per_packet" ["plugin"]
        "Clock cycles that the plugin takes for a packet, over all its calls."
    Gauge PLUGIN_PRICE "sluice_plugin_price_cycles_per_packet" ["plugin"]
        "Clock cycles a packet that the plugin was priced at when it was loaded: what its budget is held against."
    Gauge PLUGIN_CORES "sluice_plugin_price_cores" ["plugin"]
        "Cores that the plugin would keep busy at its price and the packets that the router receives now."
    Counter PLUGIN_VERDICTS "sluice_plugin_verdicts_total" ["plugin", "verdict"]
        "Packets by what the plugin made of them: continue, drop, default-drop, transmit; and how often it was bad, unjudged, or left to the last-good generation."
    Counter PLUGIN_FLOWS "sluice_plugin_flows_total" ["plugin", "event"]
        "Looks at the verdicts kept for flows: hit, miss, and eviction of another flow's for want of room."
    Counter PLUGIN_STATES "sluice_plugin_states_total" ["plugin", "outcome"]
        "States of instances at the plugin's reloads: taken over by the next generation, or lost."
    Counter PLUGIN_COUNTER "sluice_plugin_counter_total" ["plugin", "counter"]
        "The plugin's own counters by name; of an array those elements that are not zero."
    Gauge PLUGIN_GAUGE "sluice_plugin_gauge" ["plugin", "gauge"]
        "The plugin's own gauges by name, added up over workers."
    Gauge PLUGIN_CALL_CYCLES "sluice_plugin_call_cycles" ["plugin", "hook", "worker", "quantile"]
        "Clock cycles of a call of the plugin that half of its calls, or 99 % of them, do not exceed."
    Gauge PLUGIN_PACKET_CYCLES "sluice_plugin_packet_cycles" ["plugin", "hook", "worker", "quantile"]
        "Clock cycles a packet that half of the plugin's packets, or 99 % of them, do not exceed."
}

/// Registers the help of every metric with the current recorder.
pub(super) fn describe() {
    for metric in METRICS {
        // The unit is in the name, as Prometheus has it.
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, Unit::Count, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, Unit::Count, metric.help),
        }
    }
}

/// The table of all metrics in Markdown, for the documentation.
#[must_use]
pub fn documentation() -> String {
    let mut page = String::from("| name | type | labels | help |\n|---|---|---|---|\n");
    for Metric { name, kind, labels, help } in METRICS {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        // A String takes writes without an error.
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let names: HashSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len(), "names are unique");
        for Metric { name, kind, help, .. } in METRICS {
            assert!(name.starts_with("sluice_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn the_documentation_has_a_row_for_each() {
        let page = documentation();
        assert_eq!(page.lines().count(), METRICS.len() + 2);
        assert!(page.contains("| `sluice_drops_total` | counter | interface, reason | Packets"));
    }
}
