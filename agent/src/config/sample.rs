//! A configuration to begin with: what a three-node cluster needs, each key with its reason.

/// The sample as text. It loads as it stands; addresses and passwords are to be replaced.
pub const SAMPLE: &str = include_str!("sample.yml");

/// An environment in which [`SAMPLE`] is the whole configuration of the member `name`.
#[cfg(test)]
pub(crate) fn surroundings(name: &str) -> super::Surroundings {
    let text = SAMPLE.replace("name: node1", &format!("name: {name}"));
    super::Surroundings {
        environment: [("PATRONI_CONFIGURATION".to_owned(), text)].into(),
        current_dir: "/".into(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sample_loads_without_a_problem() {
        let (settings, problems) =
            crate::config::load(None, &super::surroundings("node1")).expect("the sample is valid");
        assert_eq!(problems, []);
        assert_eq!(settings.scope, "main");
        assert_eq!(settings.etcd.hosts.len(), 3);
        assert!(settings.bootstrap.is_some());
        let dcs = settings
            .bootstrap
            .as_ref()
            .map(|bootstrap| bootstrap.dcs.clone())
            .unwrap_or_default();
        let (effective, problems) = crate::config::effective(&settings, &dcs).expect("valid");
        assert_eq!(problems, []);
        assert_eq!(effective.core.ttl.as_secs(), 5);
        assert!(effective.core.use_pg_rewind);
    }
}
