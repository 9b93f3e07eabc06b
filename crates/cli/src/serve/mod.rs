//! `courier serve`: events over HTTP.
//!
//! Rules:
//! - The service starts without Kafka. A file of dead letters or a spool that can't be made is a reason not to start.
//! - The first signal ends the service in order, the second immediately.

mod descriptors;
mod options;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::HumanCount;
use kafka_courier::dlq::OpenError;
use kafka_courier::{
    CloseReport, ConfigErrors, ConfigProblem, KafkaConfig, KafkaProducer, LoadedConfig, SecurityProtocol,
    SpoolOpenError,
};
use kafka_courier_gateway::{DrainReport, Gateway, GatewayConfig, GatewayServer, MetricsText, ServeError};
use kafka_courier_test_broker::TestCluster;

use self::options::ServeOptions;
use crate::exit::{CommandError, Exit};
use crate::files::CommandFiles;
use crate::settings::SettingsArgs;
use crate::shared_file::{FileUse, SharedFile};
use crate::signals::Signals;
use crate::state_folder;
use crate::topics::built_in_topics;

const PARTITIONS: i32 = 6;
/// The time for verdicts after the second signal.
const LAST: Duration = Duration::from_secs(2);

/// Accept events over HTTP, and publish them
///
/// POST /v1/events takes JSON, NDJSON and CloudEvents, POST /v1/topics/{topic} any bytes. An answer of success means that the
/// events are in Kafka, on disk (--spool), or in memory, as the request asks. SIGTERM and Ctrl-C end the service in order: it
/// is not ready for --drain-delay, answers its requests, and delivers the accepted events within --grace.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Keep accepted events in this folder, on disk, until they are delivered [env: KAFKA_SPOOL_DIR]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Publish to a broker inside this process, to try the service without Kafka
    ///
    /// Its events are lost when the process ends.
    #[arg(long, conflicts_with = "spool")]
    embedded_broker: bool,
    #[command(flatten)]
    options: ServeOptions,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Runs the command.
pub(crate) fn run(args: ServeArgs) -> Exit {
    let runtime = match crate::runtime::start_wide() {
        Ok(runtime) => runtime,
        Err(error) => return error.report(),
    };
    let exit = runtime.block_on(serve(args)).unwrap_or_else(CommandError::report);
    runtime.shutdown_background();
    exit
}

async fn serve(args: ServeArgs) -> Result<Exit, CommandError> {
    let mut signals = Signals::catch();
    let started = tokio::select! {
        biased;
        () = signals.reached(1) => return Err(CommandError(signals.exit(), "stopped by a signal".to_owned())),
        started = start(args) => started?,
    };
    let StartedService { producer, server, _cluster } = started;
    signals.reached(1).await;
    crate::say("the service ends: signal again to stop immediately");
    tokio::select! {
        report = server.drain() => Ok(print_report(&report)),
        () = signals.reached(2) => {
            let _ = tokio::time::timeout(LAST, producer.close(Duration::ZERO)).await;
            Err(CommandError(signals.exit(), "stopped immediately".to_owned()))
        }
    }
}

/// A running service.
struct StartedService {
    producer: KafkaProducer,
    server: GatewayServer,
    /// Runs until it is dropped.
    _cluster: Option<TestCluster>,
}

async fn start(args: ServeArgs) -> Result<StartedService, CommandError> {
    let loaded = load(&args.settings)?;
    let merged = args.options.over(loaded.own_settings());
    let mut options = merged.map_err(|error| CommandError(Exit::Config, error.to_string()))?;
    limit_connections(&mut options);
    options.validate().map_err(|problems| CommandError(Exit::Config, problems))?;
    let mut config = loaded.config;
    if let Some(folder) = &args.spool {
        config.spool_dir = folder.display().to_string();
    }
    let cluster = match args.embedded_broker {
        true => Some(embedded(&mut config).await?),
        false => None,
    };
    let text = MetricsText::install();
    let producer = build(&config, cluster.is_some()).await?;
    let gateway = Gateway::new(producer.clone(), &config, options).map_err(not_started)?;
    let server = GatewayServer::start(gateway, text).await.map_err(not_started)?;
    print_addresses(&server, cluster.is_some());
    tokio::spawn(warn_if_unreachable(producer.clone(), config.metadata_timeout));
    Ok(StartedService { producer, server, _cluster: cluster })
}

/// Lowers the number of connections to the process's limit of open files.
fn limit_connections(options: &mut GatewayConfig) {
    let fitting = descriptors::connections().and_then(|fitting| usize::try_from(fitting).ok());
    if let Some(fitting) = fitting.filter(|fitting| *fitting < options.max_connections) {
        crate::say(&format!(
            "warning: at most {fitting} connections instead of {} (--max-connections): raise the limit of open files \
             (ulimit -n)",
            options.max_connections
        ));
        options.max_connections = fitting;
    }
}

fn load(settings: &SettingsArgs) -> Result<LoadedConfig, CommandError> {
    let mut files = CommandFiles::new();
    files.settings(settings.file());
    files.check()?;
    let loaded = settings.load().map_err(|errors| CommandError(Exit::Config, errors.to_string()))?;
    files.named_by(&loaded);
    files.check()?;
    Ok(loaded)
}

/// Starts a broker with the topics of all built-in types, and makes it the only one of the settings.
async fn embedded(config: &mut KafkaConfig) -> Result<TestCluster, CommandError> {
    let failed = |error: &dyn std::fmt::Display| {
        CommandError(Exit::Io, format!("cannot start the broker inside the process: {error}"))
    };
    let mut topics = built_in_topics();
    topics.push("default-events");
    let builder = TestCluster::builder().auto_create_topics(PARTITIONS);
    let builder = topics.into_iter().fold(builder, |builder, topic| builder.topic(topic, PARTITIONS));
    let cluster = builder.start().await.map_err(|error| failed(&error))?;
    config.brokers = vec![cluster.bootstrap().parse().map_err(|error| failed(&error))?];
    config.security_protocol = SecurityProtocol::Plaintext;
    Ok(cluster)
}

/// Builds the producer with its spool and its dead letters.
async fn build(config: &KafkaConfig, is_embedded: bool) -> Result<KafkaProducer, CommandError> {
    config.validate().map_err(|errors| CommandError(Exit::Config, errors.to_string()))?;
    let settings = config.clone();
    let built = tokio::task::spawn_blocking(move || {
        let file = letter_file(&settings, is_embedded)?;
        let mut builder = KafkaProducer::builder();
        match file {
            Some(file) => {
                let mut config = settings;
                config.dlq_file = String::new();
                builder = builder.with_config(config).dead_letter_store(Arc::new(file));
            }
            None => builder = builder.with_config(settings),
        }
        builder.build().map_err(|errors| build_failed(&errors))
    });
    built.await.map_err(|error| CommandError(Exit::Io, error.to_string()))?
}

/// Opens the file of dead letters, which several processes may share. A topic or a spool keeps them otherwise.
fn letter_file(config: &KafkaConfig, is_embedded: bool) -> Result<Option<SharedFile>, CommandError> {
    let has_other = !config.dlq_topic.is_empty() || !config.spool_dir.is_empty() || is_embedded;
    let path = match config.dlq_file.as_str() {
        "" if has_other => return Ok(None),
        "" => match state_folder::dead_letters() {
            Some(path) => path,
            None => {
                crate::say("warning: dead letters are kept in memory only: there is no home folder, so set dlq_file");
                return Ok(None);
            }
        },
        path => path.into(),
    };
    let opened = SharedFile::open(Path::new(&path), config, FileUse::Publish);
    opened.map(Some).map_err(|error| {
        let exit = if matches!(error, OpenError::Held { .. }) { Exit::Busy } else { Exit::CantCreate };
        CommandError(exit, format!("cannot open the file of dead letters: {error}"))
    })
}

fn build_failed(errors: &ConfigErrors) -> CommandError {
    let spool = errors.problems().iter().find_map(ConfigProblem::spool_error);
    let exit = match spool {
        Some(SpoolOpenError::Locked { .. }) => Exit::Busy,
        Some(SpoolOpenError::Copied { .. }) => Exit::Config,
        Some(_) => Exit::CantCreate,
        None => match errors.problems().iter().find_map(ConfigProblem::dead_letter_error) {
            Some(OpenError::Held { .. }) => Exit::Busy,
            Some(_) => Exit::CantCreate,
            None => Exit::Config,
        },
    };
    CommandError(exit, errors.to_string())
}

fn not_started(error: ServeError) -> CommandError {
    let exit = match &error {
        ServeError::Options(_) | ServeError::File { .. } => Exit::Config,
        ServeError::Listen { error, .. } if error.kind() == std::io::ErrorKind::AddrInUse => Exit::Busy,
        _ => Exit::Io,
    };
    CommandError(exit, error.to_string())
}

fn print_addresses(server: &GatewayServer, is_embedded: bool) {
    let (events, management) = (server.address(), server.management_address());
    crate::say(&format!("events: http://{events}/v1/events, probes and metrics: http://{management}"));
    if is_embedded {
        let event = r#"{"type":"user.logged_in","data":{"user_id":"u-42"}}"#;
        crate::say("a broker inside this process takes the events. Try:");
        crate::say(&format!("curl -i http://{events}/v1/events -H 'content-type: application/json' -d '{event}'"));
    }
}

/// Prints a warning if no broker answers. The service accepts events all the same.
async fn warn_if_unreachable(producer: KafkaProducer, patience: Duration) {
    if let Err(error) = producer.health_check(patience).await
        && !producer.stats().is_closed
    {
        crate::say(&format!("warning: {error}: the service runs, and tries again for each event"));
    }
}

fn print_report(report: &DrainReport) -> Exit {
    let CloseReport { delivered, failed, stored, in_memory, .. } = report.producer;
    let mut text = format!("{} requests, {} events delivered", HumanCount(report.requests), HumanCount(delivered));
    if failed > 0 {
        text.push_str(&format!(", {} failed", HumanCount(failed)));
    }
    if stored > 0 {
        text.push_str(&format!(", {} left in the spool", HumanCount(stored)));
    }
    if !report.is_complete {
        text.push_str(", some requests were cut off (--grace)");
    }
    crate::say(&text);
    if in_memory > 0 {
        crate::say(&format!("warning: {} dead letters were in memory only: set dlq_file", HumanCount(in_memory)));
    }
    Exit::Ok
}
