//! What the demo is asked for on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use dwell::web::{NewSessions, Site};
use dwell::{AtLimit, Options, Sessions};

use super::super::Failure;

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    pub(super) listen: SocketAddr,
    /// Directory for the sessions; made if it does not exist
    #[arg(long, value_name = "DIR", default_value = "./dwell-data")]
    pub(super) data: PathBuf,
    /// How browsers reach the application
    #[arg(long, value_enum, default_value = "localhost")]
    pub(super) profile: Profile,
    /// End sessions after this long without a request, as `30m` [default: 12h; lan 15m, https 30m]
    #[arg(long, value_name = "D", value_parser = duration)]
    idle: Option<Duration>,
    /// End sessions this long after they began, as `12h` [default: 24h; lan 8h, https 12h]
    #[arg(long, value_name = "D", value_parser = duration)]
    lifetime: Option<Duration>,
    /// The most sessions one user may have; a further one ends the oldest
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u32).range(1..))]
    max_per_user: u32,
    /// Answer to this host name too; may be repeated
    #[arg(long, value_name = "NAME[:PORT]")]
    allow_host: Vec<String>,
    /// Believe the forwarding headers of this address or network; may be repeated
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<String>,
    /// New anonymous sessions of one client in a minute, as `20/min`, or `off` for no limit, not even for all together [default:
    /// 20/min, and 200 a second for all]
    #[arg(long, value_name = "N/min|off", value_parser = new_sessions)]
    new_sessions: Option<NewSessions>,
    /// Replace tokens in use after this long, as `5m` [default: lan 5m, others never]
    #[arg(long, value_name = "D", value_parser = duration, hide = true)]
    rotate_every: Option<Duration>,
    /// How long a token that was replaced goes on, at most `1m`
    #[arg(long, value_name = "D", value_parser = duration, hide = true, default_value = "10s")]
    rotation_overlap: Duration,
    /// How requests say whose they are
    #[arg(long, value_enum, default_value = "cookie")]
    pub(super) tracking: Tracking,
}

/// How requests say whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Tracking {
    /// By a cookie, as browsers do
    Cookie,
    /// By `Authorization: Bearer` with the token that the answer to a sign-in has, for programs
    Header,
    /// By the parameter `session` of each address, which gives sessions away; for seeing how
    Url,
}

fn new_sessions(text: &str) -> Result<NewSessions, String> {
    if text == "off" {
        return Ok(NewSessions::unlimited());
    }
    let count = text.strip_suffix("/min").and_then(|count| count.parse().ok()).filter(|&count: &u32| count > 0);
    let count = count.ok_or("write a number a minute, as `20/min`, or `off`")?;
    Ok(NewSessions::default().per_client_per_minute(count))
}

/// How browsers reach the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Profile {
    /// One machine, for people: the cookie needs a companion secret
    Localhost,
    /// A device on a local network, plain HTTP; give `--listen` its address
    Lan,
    /// The internet, behind a proxy that speaks TLS; give `--allow-host`
    Https,
    /// One machine, for writing programs
    Development,
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

const fn hours(hours: u64) -> Duration {
    minutes(hours * 60)
}

const DAY: Duration = hours(24);

impl Profile {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Localhost => "localhost",
            Self::Lan => "lan",
            Self::Https => "https",
            Self::Development => "development",
        }
    }

    /// Idle timeout and lifetime of a sign-in.
    const fn limits(self) -> (Duration, Duration) {
        match self {
            Self::Localhost | Self::Development => (hours(12), DAY),
            Self::Lan => (minutes(15), hours(8)),
            Self::Https => (minutes(30), hours(12)),
        }
    }
}

impl Profile {
    /// Where tokens travel in the clear, one that was overheard is not to serve for long.
    const fn rotates_every(self) -> Option<Duration> {
        match self {
            Self::Lan => Some(minutes(5)),
            Self::Localhost | Self::Https | Self::Development => None,
        }
    }
}

impl Args {
    pub(super) fn options(&self) -> Options {
        let signed_in = self.limits(self.profile.limits());
        let remembered = self.limits((7 * DAY, 30 * DAY));
        let anonymous = self.limits((DAY, DAY));
        let options = match self.rotate_every.or_else(|| self.profile.rotates_every()) {
            Some(every) => Options::new().rotate_every(every),
            None => Options::new(),
        };
        options
            .rotation_overlap(self.rotation_overlap)
            .idle_timeout(signed_in.0)
            .lifetime(signed_in.1)
            .remembered(remembered.0, remembered.1)
            .anonymous_lifetime(anonymous.1)
            .anonymous_idle_timeout(anonymous.0)
            .sessions_per_principal(self.max_per_user, AtLimit::EndOldest)
            // A process that is being replaced gets the time it needs to end.
            .wait_for_lock(Duration::from_secs(1))
    }

    /// What was asked for, or else the defaults; nobody is idle for longer than they live.
    fn limits(&self, (idle, lifetime): (Duration, Duration)) -> (Duration, Duration) {
        let lifetime = self.lifetime.unwrap_or(lifetime);
        (self.idle.unwrap_or_else(|| idle.min(lifetime)), lifetime)
    }

    /// Looks at what can be wrong before anything is opened or made.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.profile == Profile::Https && self.allow_host.is_empty() {
            // Nothing else tells which name the proxy in front is known by.
            let message = "`--profile https` needs `--allow-host`, the name that browsers know the site by";
            return Err(Failure::Usage(message.to_owned()));
        }
        let usage = |error: dwell::Error| Failure::Usage(format!("{error:#}"));
        let trial = self.options().in_memory().map_err(usage)?;
        let site = self.site(trial).map_err(usage)?;
        site.check_address(self.listen).map_err(|error| Failure::Usage(format!("`--listen`: {error:#}")))
    }

    pub(super) fn site(&self, sessions: Sessions) -> dwell::Result<Site> {
        let (mut site, mut hosts) = match self.profile {
            Profile::Localhost => (Site::localhost(sessions), self.allow_host.as_slice()),
            Profile::Development => (Site::development(sessions), self.allow_host.as_slice()),
            Profile::Lan => (Site::lan(sessions), self.allow_host.as_slice()),
            Profile::Https => match self.allow_host.split_first() {
                Some((first, others)) => (Site::https(sessions, first)?, others),
                None => (Site::https(sessions, "")?, &[][..]),
            },
        };
        while let Some((host, others)) = hosts.split_first() {
            site = site.allow_host(host)?;
            hosts = others;
        }
        site = match self.tracking {
            Tracking::Cookie => site,
            Tracking::Header => site.by_header(),
            Tracking::Url => site.dangerous().by_address(),
        };
        if let Some(limits) = self.new_sessions {
            site = site.new_sessions(limits);
        }
        self.trusted_proxy.iter().try_fold(site, |site, network| site.trusted_proxy(network))
    }
}

/// A span of time, as people write it: `3s`, `30m`, `12h`, `1h 30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let span =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write a span like 30s, 15m or 12h"))?;
    if span < Duration::from_secs(1) || span > Options::LIFETIME_MAX {
        return Err("a span is between 1s and 10 years".to_owned());
    }
    Ok(span)
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

    fn args(line: &[&str]) -> Args {
        Line::try_parse_from([&["demo"], line].concat()).unwrap().args
    }

    #[test]
    fn the_limits_are_the_profiles_unless_asked_otherwise() {
        assert_eq!(args(&[]).limits(Profile::Localhost.limits()), (hours(12), DAY));
        let short = args(&["--lifetime", "10s"]);
        let ten = Duration::from_secs(10);
        assert_eq!(short.limits(Profile::Https.limits()), (ten, ten));
        let idle = args(&["--idle", "3s"]);
        assert_eq!(idle.limits(Profile::Lan.limits()), (Duration::from_secs(3), hours(8)));
        assert_eq!(Profile::Https.limits(), (minutes(30), hours(12)));
        for wrong in [["--idle", "soon"], ["--idle", "0s"], ["--lifetime", "99999d"], ["--max-per-user", "0"]] {
            assert!(Line::try_parse_from([&["demo"], &wrong[..]].concat()).is_err(), "{wrong:?}");
        }
        assert!(args(&["--idle", "48h"]).check().is_err(), "longer than the life");
        assert!(args(&["--rotation-overlap", "2m"]).check().is_err());
        assert_eq!((Profile::Lan.rotates_every(), Profile::Https.rotates_every()), (Some(minutes(5)), None));
    }

    #[test]
    fn https_needs_a_name() {
        let sessions = Options::new().in_memory().unwrap();
        let Err(Failure::Usage(message)) = args(&["--profile", "https"]).check() else { panic!("it passed") };
        assert!(message.contains("--allow-host"), "{message}");
        assert!(args(&["--profile", "https", "--allow-host", "a b"]).check().is_err());
        assert!(args(&["--trusted-proxy", "x"]).check().is_err());
        assert!(args(&["--profile", "https", "--allow-host", "a.example", "--allow-host", "b"]).site(sessions).is_ok());
    }
}
