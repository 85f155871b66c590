//! `stead serve`: the flags, resolved, and then the node.

use crate::cli::args::ServeArgs;
use crate::cli::failed::Failed;
use crate::journal::OpenError;
use crate::node;
use crate::words::config::{Config, Overrides};

pub fn run(args: ServeArgs) -> Result<(), Failed> {
    let config =
        Config::resolve(overrides(args)).map_err(|error| Failed::usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("stead")
        .build()
        .map_err(|error| Failed::local(format!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(node::run(config));
    // A guest in the middle of a long turn must not keep the process.
    runtime.shutdown_background();
    ended.map_err(|error| match error.downcast_ref() {
        Some(OpenError::StoreUrl { .. }) => Failed::usage(error.to_string()),
        _ => error.into(),
    })
}

fn overrides(args: ServeArgs) -> Overrides {
    let origins = args.cors_allowed_origins;
    Overrides {
        config: args.config,
        data: args.data,
        listen: args.listen,
        admin: args.admin,
        ports_file: args.ports_file,
        tls_certificate: args.tls_certificate,
        tls_key: args.tls_key,
        cors_allowed_origins: (!origins.is_empty()).then(|| origins.join(",")),
        cors_max_age: args.cors_max_age,
        hot_entities: args.hot_entities,
        hot_memory: args.hot_memory,
        effect_tries: args.effect_tries,
        store: args.store,
        peer: args.peer,
        advertise: args.advertise,
        join: (!args.join.is_empty()).then(|| args.join.join(",")),
        zone: args.zone,
        capacity: args.capacity,
        shards: args.shards,
        fast_failover: args.fast_failover.then(|| "true".into()),
        peer_tls_certificate: args.peer_tls_certificate,
        peer_tls_key: args.peer_tls_key,
        peer_tls_ca: args.peer_tls_ca,
        version_for_tests: args.version_for_tests,
        log_format: args.log_format,
        log_filter: args.log_filter,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parsed(line: &str) -> Overrides {
        match Cli::parse_from(line.split(' ')).command {
            Command::Serve(args) => overrides(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_flag_overrides_nothing() {
        let overrides = parsed("stead serve");
        assert_eq!(overrides.cors_allowed_origins, None);
        assert_eq!((overrides.data, overrides.listen), (None, None));
    }

    #[test]
    fn repeated_origins_become_one_list() {
        let overrides = parsed("stead serve --cors-origin https://a --cors-origin https://b");
        assert_eq!(overrides.cors_allowed_origins.as_deref(), Some("https://a,https://b"));
    }

    #[test]
    fn short_spellings_of_flags_are_taken() {
        let line = "stead serve --tls-cert c --tls-key k --hot-entities-max 5 --hot-bytes-max 1GiB --log debug";
        let overrides = parsed(line);
        assert_eq!(overrides.tls_certificate.as_deref(), Some("c"));
        assert_eq!(overrides.hot_entities.as_deref(), Some("5"));
        assert_eq!(overrides.hot_memory.as_deref(), Some("1GiB"));
        assert_eq!(overrides.log_filter.as_deref(), Some("debug"));
    }
}
