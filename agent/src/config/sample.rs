//! A configuration to begin with: what a three-node cluster needs, each key with its reason.

/// The sample as text. It loads as it stands; addresses and passwords are to be replaced.
pub const SAMPLE: &str = include_str!("sample.yml");

/// The sample of a router of its own, as the package installs it.
pub const ROUTER: &str = include_str!("../../debian/router.example.yml");

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
    /// Every value of the router's sample, those in comments included, is one that is read; those not in comments are the defaults.
    #[test]
    fn the_sample_of_a_router_loads_without_a_problem() {
        let around = |text: String| crate::config::Surroundings {
            environment: [("PATRONI_CONFIGURATION".to_owned(), text)].into(),
            current_dir: "/".into(),
        };
        let load = |text: &str| {
            let loaded = crate::config::load_router(None, &around(text.to_owned()));
            let (file, problems) = loaded.expect("the sample is valid");
            assert_eq!(problems, []);
            file.router
        };
        let mut written = load(super::ROUTER);
        // A value in a comment has no blank before it.
        let bare = |line: &str| match line.strip_prefix("  #") {
            Some(value) if !value.starts_with(' ') => format!("  {value}\n"),
            _ => format!("{line}\n"),
        };
        let whole = load(&super::ROUTER.lines().map(bare).collect::<String>());
        assert!(whole.idle_timeout.is_some() && whole.maximum_lag.is_some());
        assert_eq!(whole.accept_proxy.len(), 2);
        let least = "scope: main\netcd3: {hosts: 10.0.0.11}\nrouter: {primary: '127.0.0.1:5000'}\n";
        (written.replicas, written.status) = (None, None);
        assert_eq!(written, load(least));
    }

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
