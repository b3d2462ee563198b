//! `mlxcel serve`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, ValueEnum, builder::BoolishValueParser};

use super::logging::{Format, Level, init};
use crate::hub::HubOptions;
use crate::mlx::Affine;
use crate::mlx::kernels::{Isa, MOST_THREADS, quantize_activations, set_threads};
use crate::models::KvFormat;
use crate::server::auth::Keys;
use crate::server::lifeline::Lifeline;
use crate::server::listener::Address;
use crate::server::load::ModelOptions;
use crate::server::reader::Telling;
use crate::server::sites::Origin;
use crate::server::terms::Policy;
use crate::server::tls::Tls;
use crate::server::{ServeError, ServerOptions, run as serve};
use crate::text::output::ToolFormat;

/// The port where none is given.
const PORT: u16 = 8080;

/// The exit code where the engine died under a running server (`EX_SOFTWARE` of sysexits.h): unlike one
/// that cannot start, it is worth starting again.
pub(super) const ENGINE_DIED: i32 = 70;

/// Serve a model over HTTP with the OpenAI API
///
/// Listens at once; GET /health answers 503 with the progress until the model is loaded, then 200.
/// Once it listens, one line of JSON on stdout says where; logs go to stderr. SIGTERM and SIGINT let
/// running requests end, for --drain-timeout at most; a second one ends at once. SIGHUP reads the key
/// file and the certificate anew.
///
/// Every option can also be set through the variable that its help names.
#[derive(clap::Args)]
#[command(
    after_help = "The API key comes in the variable LLAMA_API_KEY, or in a file through \
                  --api-key-file: never on the command line, which every user of the machine can \
                  read.\n\nA program that starts a server for itself sets MLXCEL_LIFELINE to \
                  `<descriptor>:<its process id>`, the reading end of a pipe that the server \
                  inherits: when the other end closes, or the program is no longer the server's \
                  parent, the server ends. Programs that share a server start it with \
                  --exit-when-idle, and each holds a lease.\n\nExit codes: 0 when it was told to stop or nobody used \
                  it, 1 when the server cannot start, 2 for a wrong command line, 70 when its engine \
                  died while it served, so that starting it again may help. One line on stderr says \
                  why."
)]
pub struct Args {
    /// A folder with config.json, safetensors and tokenizer.json; `mlxcel-tiny`; or a Hugging Face
    /// repository as `owner/name` or `owner/name@revision`
    #[arg(
        short,
        long,
        env = "LLAMA_ARG_MODEL",
        hide_env_values = true,
        value_name = "MODEL"
    )]
    #[arg(help_heading = "Model")]
    model: String,

    /// What clients see as the model's id [default: the folder's name or the repository]
    #[arg(
        short,
        long,
        env = "LLAMA_ARG_ALIAS",
        hide_env_values = true,
        value_name = "NAME"
    )]
    #[arg(help_heading = "Model")]
    alias: Option<String>,

    /// Tokens of one request, prompt and answer together; 0 is the model's own context, or what
    /// memory holds
    #[arg(
        short,
        long,
        env = "LLAMA_ARG_CTX_SIZE",
        hide_env_values = true,
        value_name = "N"
    )]
    #[arg(help_heading = "Model", default_value_t = 0)]
    ctx_size: usize,

    /// Most tokens of one answer, whatever a request asks for; -1 is no limit
    #[arg(
        short,
        long,
        env = "LLAMA_ARG_N_PREDICT",
        hide_env_values = true,
        value_name = "N"
    )]
    #[arg(
        help_heading = "Model",
        visible_alias = "predict",
        allow_negative_numbers = true
    )]
    #[arg(default_value = "-1", value_parser = parse_n_predict)]
    n_predict: Predict,

    /// Folder of an adapter that mlx_lm.lora trained for this model (LoRA, DoRA, or whole tensors)
    #[arg(
        long,
        env = "LLAMA_ARG_ADAPTER",
        hide_env_values = true,
        value_name = "FOLDER",
        help_heading = "Model"
    )]
    adapter: Option<PathBuf>,

    /// Requests that are computed side by side; more of them wait
    #[arg(
        long,
        env = "LLAMA_ARG_N_PARALLEL",
        hide_env_values = true,
        value_name = "N"
    )]
    #[arg(
        help_heading = "Model",
        visible_alias = "parallel",
        default_value_t = 8
    )]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    n_parallel: u16,

    /// Memory for the states of requests, running ones and those kept for prompts that begin alike:
    /// bytes, or a number with KB, MB, GB, KiB, MiB or GiB [default: half of what the weights leave]
    #[arg(
        long,
        env = "LLAMA_ARG_KV_CACHE_BUDGET",
        hide_env_values = true,
        value_name = "BYTES"
    )]
    #[arg(help_heading = "Model", value_parser = super::bytes::parse)]
    kv_cache_budget: Option<u64>,

    /// Bits in which keys and values are kept: 16 halves what a long context takes and what each token
    /// reads of it, at a small loss; 8 and 4 pack them as weights are [default: as they are computed]
    #[arg(
        long,
        env = "LLAMA_ARG_KV_BITS",
        hide_env_values = true,
        value_name = "BITS"
    )]
    #[arg(help_heading = "Model", value_parser = one_of::<16, 8, 4>)]
    kv_bits: Option<i32>,

    /// Features of a head that share a scale where --kv-bits is 8 or 4: 32, 64 or 128
    #[arg(
        long,
        env = "LLAMA_ARG_KV_GROUP_SIZE",
        hide_env_values = true,
        value_name = "N"
    )]
    #[arg(help_heading = "Model", value_parser = one_of::<32, 64, 128>, default_value = "64")]
    kv_group_size: i32,

    /// Positions that a token sees: the first four, and the last ones; a cache takes no more, however long
    /// the sequence [default: all]
    #[arg(
        long,
        env = "LLAMA_ARG_MAX_KV_SIZE",
        hide_env_values = true,
        value_name = "N"
    )]
    #[arg(help_heading = "Model", conflicts_with = "kv_bits")]
    #[arg(value_parser = clap::value_parser!(i32).range(16..))]
    max_kv_size: Option<i32>,

    /// Compute every prompt from its first token, also one that was seen before
    #[arg(
        long,
        env = "LLAMA_ARG_NO_PREFIX_CACHE",
        hide_env_values = true,
        help_heading = "Model"
    )]
    #[arg(value_parser = BoolishValueParser::new())]
    no_prefix_cache: bool,

    /// Let only requests with the same API key share kept prompts: others could tell by the time a
    /// prompt takes whether it was seen before
    #[arg(
        long,
        env = "LLAMA_ARG_PREFIX_CACHE_PER_KEY",
        hide_env_values = true,
        help_heading = "Model"
    )]
    #[arg(value_parser = BoolishValueParser::new())]
    prefix_cache_per_key: bool,

    /// Set up what the first request would wait for: on a GPU, by computing a token
    #[arg(
        long,
        env = "LLAMA_ARG_WARMUP",
        hide_env_values = true,
        value_name = "BOOL"
    )]
    #[arg(help_heading = "Model", overrides_with = "no_warmup", action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_value_t = true)]
    #[arg(default_missing_value = "true", value_parser = BoolishValueParser::new())]
    warmup: bool,

    /// Start without that
    #[arg(long, help_heading = "Model", overrides_with = "warmup")]
    no_warmup: bool,

    /// Where to compute [default: the GPU where MLX has one, else the CPU]
    #[arg(long, env = "LLAMA_ARG_DEVICE", hide_env_values = true, value_enum)]
    #[arg(help_heading = "Model", value_name = "DEVICE")]
    device: Option<Device>,

    /// Threads that compute on the CPU [default: the physical cores that this process may use]
    #[arg(
        short,
        long,
        env = "LLAMA_ARG_THREADS",
        hide_env_values = true,
        value_name = "N"
    )]
    #[arg(help_heading = "Model")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=MOST_THREADS as i64))]
    threads: Option<u16>,

    /// Instructions that computing on the CPU uses: avx512vnni, avx512, avx2vnni, avx2, neon or portable
    /// [default: the fastest that this processor has]
    #[arg(
        long,
        env = "LLAMA_ARG_CPU_ISA",
        hide_env_values = true,
        value_name = "ISA"
    )]
    #[arg(help_heading = "Model")]
    cpu_isa: Option<Isa>,

    /// On the CPU, round activations to 8 bits on their way into matrices of 4 or 8 bits: faster, and
    /// less exact
    #[arg(
        long,
        env = "LLAMA_ARG_QUANTIZE_ACTIVATIONS",
        hide_env_values = true,
        help_heading = "Model"
    )]
    #[arg(value_parser = BoolishValueParser::new())]
    quantize_activations: bool,

    /// How the model writes tool calls [default: what its chat template says]
    #[arg(
        long,
        env = "LLAMA_ARG_TOOL_CALL_PARSER",
        hide_env_values = true,
        value_enum
    )]
    #[arg(help_heading = "Model", value_name = "FORMAT")]
    tool_call_parser: Option<ToolCallParser>,

    /// Where the thoughts are told of a chat that does not say `reasoning_format`: apart from its
    /// content (auto, deepseek), or in it (none)
    #[arg(
        long,
        env = "LLAMA_ARG_REASONING_FORMAT",
        hide_env_values = true,
        value_enum
    )]
    #[arg(help_heading = "Model", value_name = "FORMAT", default_value = "auto")]
    reasoning_format: ReasoningFormat,

    /// Load a model even if its weights or its context do not seem to fit into memory
    #[arg(
        long,
        env = "LLAMA_ARG_FORCE",
        hide_env_values = true,
        help_heading = "Model"
    )]
    #[arg(value_parser = BoolishValueParser::new())]
    force: bool,

    /// Address to listen on; a path (with a slash, or ending in .sock) is a Unix socket, which only
    /// this user can reach
    #[arg(
        long,
        env = "LLAMA_ARG_HOST",
        hide_env_values = true,
        value_name = "ADDRESS|PATH"
    )]
    #[arg(help_heading = "Server", default_value = "127.0.0.1")]
    host: String,

    /// Port to listen on; 0 takes a free one. With a Unix socket leave it out, or 0
    /// [default: 8080]
    #[arg(
        long,
        env = "LLAMA_ARG_PORT",
        hide_env_values = true,
        value_name = "PORT"
    )]
    #[arg(help_heading = "Server")]
    port: Option<u16>,

    /// File with API keys, one a line, beside the one in LLAMA_API_KEY; SIGHUP reads it anew
    #[arg(
        long,
        env = "LLAMA_ARG_API_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    #[arg(help_heading = "Server")]
    api_key_file: Option<PathBuf>,

    /// Serve other machines although no API key is set
    #[arg(
        long,
        env = "LLAMA_ARG_INSECURE",
        hide_env_values = true,
        help_heading = "Server"
    )]
    #[arg(value_parser = BoolishValueParser::new())]
    insecure: bool,

    /// Certificate for TLS in PEM, the server's own first, then its chain; SIGHUP reads it anew
    #[arg(
        long,
        env = "LLAMA_ARG_TLS_CERT",
        hide_env_values = true,
        value_name = "FILE"
    )]
    #[arg(help_heading = "Server", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Its private key
    #[arg(
        long,
        env = "LLAMA_ARG_TLS_KEY",
        hide_env_values = true,
        value_name = "FILE"
    )]
    #[arg(help_heading = "Server", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Names by which clients may address the server, beside this machine's own; a server that other
    /// machines reach with a key has any
    #[arg(
        long,
        env = "LLAMA_ARG_ALLOWED_HOSTS",
        hide_env_values = true,
        value_name = "NAME,…"
    )]
    #[arg(help_heading = "Server", value_delimiter = ',')]
    allowed_hosts: Vec<String>,

    /// Sites whose scripts may call the server from a browser, as scheme://host[:port], or * [default:
    /// none]
    #[arg(
        long,
        env = "LLAMA_ARG_ALLOWED_ORIGINS",
        hide_env_values = true,
        value_name = "ORIGIN,…"
    )]
    #[arg(help_heading = "Server", value_delimiter = ',')]
    allowed_origins: Vec<Origin>,

    /// Refuse requests that name another model, with 404
    #[arg(
        long,
        env = "LLAMA_ARG_STRICT_MODEL",
        hide_env_values = true,
        help_heading = "Server"
    )]
    #[arg(value_parser = BoolishValueParser::new())]
    strict_model: bool,

    /// Serve GET /metrics; it always is (llama-server wants to be asked)
    #[arg(long, hide = true, help_heading = "Server")]
    metrics: bool,

    /// Seconds that a request may take to arrive, a client may leave unread what it is sent, and an
    /// idle connection stays open
    #[arg(
        long,
        env = "LLAMA_ARG_TIMEOUT",
        hide_env_values = true,
        value_name = "SECONDS"
    )]
    #[arg(help_heading = "Server", default_value_t = 600)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,

    /// Seconds that running requests have to end after SIGTERM or SIGINT
    #[arg(
        long,
        env = "LLAMA_ARG_DRAIN_TIMEOUT",
        hide_env_values = true,
        value_name = "SECONDS"
    )]
    #[arg(help_heading = "Server", default_value = "30", value_parser = parse_seconds)]
    drain_timeout: Duration,

    /// Seconds after which a request is given up, waiting included [default: no limit]
    #[arg(
        long,
        env = "LLAMA_ARG_REQUEST_TIMEOUT",
        hide_env_values = true,
        value_name = "SECONDS"
    )]
    #[arg(help_heading = "Server", value_parser = parse_seconds)]
    request_timeout: Option<Duration>,

    /// End once nobody has used the server for so long: no lease (GET /lease) was held and no request
    /// ran or waited
    #[arg(
        long,
        env = "LLAMA_ARG_EXIT_WHEN_IDLE",
        hide_env_values = true,
        value_name = "SECONDS"
    )]
    #[arg(help_heading = "Server", value_parser = parse_seconds)]
    exit_when_idle: Option<Duration>,

    /// How much to log
    #[arg(long, env = "LLAMA_ARG_LOG_LEVEL", hide_env_values = true, value_enum)]
    #[arg(help_heading = "Log", default_value = "info", value_name = "LEVEL")]
    log_level: Level,

    /// How to write it
    #[arg(long, env = "LLAMA_ARG_LOG_FORMAT", hide_env_values = true, value_enum)]
    #[arg(help_heading = "Log", default_value = "text", value_name = "FORMAT")]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Device {
    Cpu,
    Gpu,
}

/// The formats by the names that vLLM gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum ToolCallParser {
    Hermes,
    #[value(name = "llama3_json")]
    Llama3Json,
    Pythonic,
    Mistral,
    #[value(name = "qwen3_coder")]
    Qwen3Coder,
    Harmony,
}

impl From<ToolCallParser> for ToolFormat {
    fn from(parser: ToolCallParser) -> Self {
        match parser {
            ToolCallParser::Hermes => Self::Hermes,
            ToolCallParser::Llama3Json => Self::Llama3Json,
            ToolCallParser::Pythonic => Self::Pythonic,
            ToolCallParser::Mistral => Self::Mistral,
            ToolCallParser::Qwen3Coder => Self::QwenXml,
            ToolCallParser::Harmony => Self::Harmony,
        }
    }
}

/// llama-server's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReasoningFormat {
    Auto,
    Deepseek,
    None,
}

impl From<ReasoningFormat> for Telling {
    fn from(format: ReasoningFormat) -> Self {
        match format {
            ReasoningFormat::Auto | ReasoningFormat::Deepseek => Self::Apart,
            ReasoningFormat::None => Self::InContent,
        }
    }
}

/// A limit, or none. A type of its own, as clap takes an `Option` for an option left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Predict(Option<usize>);

fn parse_n_predict(text: &str) -> Result<Predict, String> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(Predict(None)),
        Ok(count) if count > 0 => Ok(Predict(usize::try_from(count).ok())),
        _ => Err("a number of tokens from 1 on, or -1 for no limit".to_owned()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "a number of seconds above 0".to_owned())
}

impl Args {
    fn options(
        self,
        lifeline: Option<Lifeline>,
    ) -> Result<ServerOptions, Box<dyn std::error::Error>> {
        let variable = match std::env::var("LLAMA_API_KEY") {
            Ok(key) => Some(key),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err("LLAMA_API_KEY is not text".into());
            }
        };
        if let Some(isa) = self.cpu_isa {
            isa.choose().map_err(|error| error.message().to_owned())?;
        }
        if let Some(threads) = self.threads {
            set_threads(threads.into())?;
        }
        let device = self.device.map(|device| match device {
            Device::Cpu => crate::mlx::Device::Cpu,
            Device::Gpu => crate::mlx::Device::Gpu,
        });
        if self.quantize_activations {
            if device.unwrap_or_else(crate::mlx::Device::best) != crate::mlx::Device::Cpu {
                return Err(
                    "--quantize-activations is for the CPU: leave it out, or add --device cpu"
                        .into(),
                );
            }
            quantize_activations(true);
        }
        let keys = Keys::load(variable, self.api_key_file.as_deref())?;
        let model = ModelOptions {
            model: self.model,
            adapter: self.adapter,
            alias: self.alias,
            ctx_size: (self.ctx_size > 0).then_some(self.ctx_size),
            n_predict: self.n_predict.0,
            n_parallel: self.n_parallel.into(),
            kv_cache_budget: self.kv_cache_budget,
            kv_format: kv_format(self.kv_bits, self.kv_group_size),
            max_kv_size: self.max_kv_size,
            prefix_cache: !self.no_prefix_cache,
            policy: Policy {
                request_timeout: self.request_timeout,
                cache_per_key: self.prefix_cache_per_key,
                strict_model: self.strict_model,
                telling: self.reasoning_format.into(),
            },
            warmup: self.warmup && !self.no_warmup,
            force: self.force,
            device,
            tool_call_parser: self.tool_call_parser.map(ToolFormat::from),
        };
        let address = address(&self.host, self.port)?;
        let tls = match (self.tls_cert, self.tls_key) {
            (Some(_), Some(_)) if address.host().is_none() => {
                return Err(
                    "--host is a Unix socket, which is private without TLS: leave out \
                            --tls-cert and --tls-key"
                        .into(),
                );
            }
            (Some(certificate), Some(key)) => Some(Tls::load(certificate, key)?),
            _ => None,
        };
        Ok(ServerOptions {
            address,
            keys,
            insecure: self.insecure,
            allowed_hosts: self.allowed_hosts,
            allowed_origins: self.allowed_origins,
            tls,
            timeout: Duration::from_secs(self.timeout.into()),
            drain_timeout: self.drain_timeout,
            exit_when_idle: self.exit_when_idle,
            lifeline,
            model,
            hub: HubOptions::from_env(),
        })
    }
}

fn one_of<const A: i32, const B: i32, const C: i32>(text: &str) -> Result<i32, String> {
    let known = text.parse().ok().filter(|it| [A, B, C].contains(it));
    known.ok_or_else(|| format!("it must be {A}, {B} or {C}"))
}

fn kv_format(bits: Option<i32>, group_size: i32) -> KvFormat {
    match bits {
        None => KvFormat::Computed,
        Some(16) => KvFormat::Half,
        Some(bits) => KvFormat::Packed(Affine { group_size, bits }),
    }
}

fn address(host: &str, port: Option<u16>) -> Result<Address, String> {
    let address = Address::new(host, port.unwrap_or(PORT));
    match (&address, port) {
        (Address::Unix(_), Some(port)) if port != 0 => Err(format!(
            "--host is a Unix socket, which has no port: leave out --port {port}"
        )),
        _ => Ok(address),
    }
}

/// Serves until it is told to stop, or fails.
pub fn run(args: Args) -> ExitCode {
    // SAFETY: no thread was started yet, and who set the variable left the descriptor to us.
    let lifeline = match unsafe { Lifeline::take() } {
        Ok(lifeline) => lifeline,
        Err(error) => return super::fail(&error),
    };
    init(args.log_level, args.log_format);
    let options = match args.options(lifeline) {
        Ok(options) => options,
        Err(error) => return super::fail(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return super::fail(&error),
    };
    let code = match runtime.block_on(serve(options)) {
        Ok(()) => 0,
        Err(error) => {
            super::fail(&error);
            match error {
                ServeError::Engine(_) => ENGINE_DIED,
                _ => 1,
            }
        }
    };
    quit(code)
}

/// Ends the process without C++'s global destructors: the engine's thread may be in the middle of a
/// step, or of loading, and still uses what they tear down.
fn quit(code: i32) -> ! {
    // Nothing can be done about a stdout that nobody reads any more.
    let _unread = std::io::stdout().flush();
    // SAFETY: takes a number and does not return; nothing in this process outlives it.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        let line = ["serve", "-m", "x"].iter().chain(words);
        Line::try_parse_from(line).map(|line| line.args)
    }

    #[test]
    fn the_defaults() {
        let args = parse(&[]).unwrap();
        assert_eq!(
            (args.ctx_size, args.n_predict, args.n_parallel),
            (0, Predict(None), 8)
        );
        assert!(args.warmup && !args.no_warmup);
        let want = Address::Tcp {
            host: "127.0.0.1".into(),
            port: 8080,
        };
        assert_eq!(address(&args.host, args.port).unwrap(), want);
    }

    #[test]
    fn the_last_word_on_warmup_counts() {
        let warmup = |words: &[&str]| {
            let args = parse(words).unwrap();
            args.warmup && !args.no_warmup
        };
        assert!(warmup(&["--warmup"]));
        assert!(!warmup(&["--no-warmup"]));
        assert!(warmup(&["--no-warmup", "--warmup"]));
        assert!(!warmup(&["--warmup", "--no-warmup"]));
    }

    #[test]
    fn llama_servers_names_and_values() {
        let args = parse(&["--parallel", "2", "--n-predict", "-1", "-c", "512"]).unwrap();
        assert_eq!(
            (args.n_parallel, args.n_predict, args.ctx_size),
            (2, Predict(None), 512)
        );
        let args = parse(&["-n", "7", "--host", "/run/a.sock", "--port", "0"]).unwrap();
        assert_eq!(args.n_predict, Predict(Some(7)));
        assert!(matches!(
            address(&args.host, args.port),
            Ok(Address::Unix(_))
        ));
    }

    #[test]
    fn idle_time_is_in_seconds_and_off_by_default() {
        assert_eq!(parse(&[]).unwrap().exit_when_idle, None);
        let args = parse(&["--exit-when-idle", "0.5"]).unwrap();
        assert_eq!(args.exit_when_idle, Some(Duration::from_millis(500)));
    }

    #[test]
    fn tool_formats_have_vllms_names() {
        for (name, want) in [
            ("hermes", ToolFormat::Hermes),
            ("llama3_json", ToolFormat::Llama3Json),
            ("pythonic", ToolFormat::Pythonic),
            ("mistral", ToolFormat::Mistral),
            ("qwen3_coder", ToolFormat::QwenXml),
            ("harmony", ToolFormat::Harmony),
        ] {
            let args = parse(&["--tool-call-parser", name]).unwrap();
            assert_eq!(args.tool_call_parser.map(ToolFormat::from), Some(want));
        }
    }

    #[test]
    fn thoughts_are_told_apart_unless_it_is_said() {
        for (words, want) in [
            (&[][..], Telling::Apart),
            (&["--reasoning-format", "deepseek"], Telling::Apart),
            (&["--reasoning-format", "none"], Telling::InContent),
        ] {
            let args = parse(words).unwrap();
            assert_eq!(Telling::from(args.reasoning_format), want, "{words:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            &["--n-predict", "0"][..],
            &["--n-predict", "-2"],
            &["--n-parallel", "0"],
            &["--timeout", "0"],
            &["--exit-when-idle", "0"],
            &["--exit-when-idle", "-1"],
            &["--exit-when-idle", "nan"],
            &["--port", "70000"],
            &["--api-key", "secret"],
            &["--device", "tpu"],
            &["--threads", "0"],
            &["--cpu-isa", "sse9"],
            &["--tool-call-parser", "xml"],
            &["--reasoning-format", "deepseek-legacy"],
            &["--drain-timeout", "0"],
            &["--tls-cert", "a.pem"],
            &["--tls-key", "a.pem"],
            &["--allowed-origins", "example.org"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        assert!(address("a.sock", Some(8080)).is_err());
    }
}
