//! What each fault may cost clients, and an agent its host: `ci/budgets.toml`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Error, Result};

const FILE: &str = include_str!("../budgets.toml");

/// All budgets, by name.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budgets {
    /// By the fault's name.
    pub(crate) fault: BTreeMap<String, Budget>,
    /// By the name of what it costs.
    pub(crate) cost: BTreeMap<String, Bound>,
}

/// What something may cost, in the unit that the file says.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bound {
    /// On a quiet machine.
    promise: f64,
    /// On a shared one.
    quick: f64,
}

impl Bound {
    /// The limit that counts.
    pub(crate) fn limit(&self, quick: bool) -> f64 {
        if quick { self.quick } else { self.promise }
    }
}

/// The budget of one fault.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    /// For 95 of 100 trials, in seconds.
    p95: f64,
    /// For the median of a few trials on a shared machine, in seconds.
    quick: f64,
}

impl Budget {
    /// The limit that counts.
    pub(crate) fn limit(&self, quick: bool) -> Duration {
        Duration::from_secs_f64(if quick { self.quick } else { self.p95 })
    }
}

/// Reads the file.
///
/// # Errors
/// [`Error::Unable`] names the line that is wrong.
pub(crate) fn all() -> Result<Budgets> {
    toml::from_str(FILE).map_err(|error| Error::Unable(format!("ci/budgets.toml: {error}")))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;
    use crate::faults::Fault;

    #[test]
    fn every_cost_has_a_budget() {
        let all = all().unwrap().cost;
        let names: Vec<&str> = crate::cost::COSTS.iter().map(|cost| cost.name).collect();
        assert_eq!(
            all.keys()
                .map(String::as_str)
                .collect::<std::collections::BTreeSet<_>>(),
            names.into_iter().collect()
        );
    }

    #[test]
    fn every_fault_but_a_full_disk_has_a_budget() {
        let all = all().unwrap().fault;
        let bounded = crate::bench::FAULTS
            .iter()
            .filter(|fault| **fault != Fault::DiskFull);
        let faults: Vec<String> = bounded.map(Fault::to_string).collect();
        assert_eq!(
            all.keys().collect::<std::collections::BTreeSet<_>>(),
            faults.iter().collect()
        );
        assert!(all.values().all(|budget| budget.p95 <= budget.quick));
        let names = |fault: &Fault| fault.to_possible_value().map(|value| value.get_name().to_owned());
        assert!(
            Fault::value_variants()
                .iter()
                .all(|fault| names(fault) == Some(fault.to_string()))
        );
    }
}
