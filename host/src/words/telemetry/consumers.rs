//! Metrics of who reads the journals.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GroupLabels {
    pub group: Arc<str>,
}

#[derive(Clone, Default)]
pub struct ConsumerMetrics {
    pub consumed: Family<GroupLabels, Counter>,
    pub faults: Family<GroupLabels, Counter>,
    pub laggards: Family<GroupLabels, Gauge>,
}

impl ConsumerMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("consumed_events", "Events that groups have consumed", self.consumed.clone());
        r.register(
            "consumer_faults",
            "Events that a group could not consume, each try counted",
            self.faults.clone(),
        );
        r.register(
            "consumer_laggards",
            "Entities that a group has left behind, in the partitions of this node",
            self.laggards.clone(),
        );
    }
}
