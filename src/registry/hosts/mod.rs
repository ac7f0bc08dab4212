//! What is known about well-known registries, as data.
//!
//! One table, looked up by host name. Software that everybody runs under a name of their own is recognised by a
//! header of its answers, if it sends one that nobody else does. Many rows say only that somebody has looked: there
//! is nothing special about them, or they say themselves what they want. Whatever the table does not list is an
//! ordinary registry. Limits that a registry states, or teaches by a 413, are the session's.

mod host_files;
pub mod learned;
mod lesson;
pub mod sightings;

use http::HeaderMap;

pub(super) use self::lesson::stricter;
pub use self::{learned::Learned, lesson::Lesson, sightings::Sightings};

/// 1 MiB.
const MIB: u64 = 1 << 20;

/// How a registry host wants its uploads.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a table, no states")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What it is called in a sentence.
    pub name: &'static str,
    /// Chunks are this large unless somebody says otherwise.
    pub chunk_size: u64,
    /// Chunks may not be larger.
    pub max_chunk: Option<u64>,
    /// All chunks of a session but the last have one size.
    pub equal_parts: bool,
    /// On a fast or far line chunks may be larger than `chunk_size`.
    pub may_grow: bool,
    /// No chunks at all: POST, PUT.
    pub monolithic: bool,
    /// Believes the `Range` header of its answers.
    pub trust_range: bool,
    /// Answers `GET <location>`.
    pub status: bool,
    /// Cuts the connection when an upload is opened in a repository that does not exist.
    pub cuts_unknown: bool,
}

impl Profile {
    /// A registry of which nothing is known: it does what the distribution specification says.
    ///
    /// 16 MiB is few enough bytes to lose and many enough to fill a line, and it suits distribution on S3,
    /// which stores parts of 10 MiB and copies the whole blob for a remainder under 5 MiB
    /// (distribution/distribution:registry/storage/driver/s3-aws/s3.go).
    pub const ORDINARY: Self = Self {
        name: "the registry",
        chunk_size: 16 * MIB,
        max_chunk: None,
        equal_parts: false,
        may_grow: true,
        monolithic: false,
        trust_range: true,
        status: true,
        cuts_unknown: false,
    };
}

impl Default for Profile {
    fn default() -> Self {
        Self::ORDINARY
    }
}

/// Returns what is known about a host, given with or without its port.
pub fn profile(host: &str) -> Profile {
    let host = host.to_ascii_lowercase();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => &host,
    };
    let name = name.trim_end_matches('.');
    let known = KNOWN.iter().find(|known| known.hosts.iter().any(|pattern| matches(pattern, name)));
    known.map_or(Profile::ORDINARY, |known| known.profile)
}

/// Returns what is known about the registry that gave an answer with these headers, if they tell.
pub fn recognise(headers: &HeaderMap) -> Option<Profile> {
    let tells = |(name, beginning): &(&str, &str)| {
        headers.get(*name).is_some_and(|value| value.as_bytes().starts_with(beginning.as_bytes()))
    };
    KNOWN.iter().find(|known| known.tell.as_ref().is_some_and(tells)).map(|known| known.profile)
}

/// A row of the table.
struct Known {
    /// Host names; a `*` stands for any characters, but at least one.
    hosts: &'static [&'static str],
    /// A header of its answers that no other registry sends, and how its value begins.
    tell: Option<(&'static str, &'static str)>,
    /// Where all this was seen.
    #[cfg_attr(not(test), expect(dead_code, reason = "for whoever doubts it"))]
    evidence: &'static [&'static str],
    profile: Profile,
}

fn matches(pattern: &str, host: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return host == pattern };
    let Some(host) = host.strip_prefix(start) else { return false };
    (1..=host.len()).any(|i| host.get(i..).is_some_and(|host| matches(rest, host)))
}

const KNOWN: &[Known] = &[
    // Refuses a PATCH with Content-Range over 4 MiB by a 416 whose text states the limit.
    Known {
        hosts: &["ghcr.io"],
        tell: None,
        evidence: &[
            "https://github.com/oras-project/rust-oci-client/issues/35",
            "https://github.com/oras-project/rust-oci-client/issues/37",
            "https://github.com/ocx-sh/ocx/issues/237",
        ],
        profile: Profile {
            name: "GitHub Container Registry",
            chunk_size: 4 * MIB,
            max_chunk: Some(4 * MIB),
            may_grow: false,
            ..Profile::ORDINARY
        },
    },
    // Refuses a second PATCH.
    Known {
        hosts: &["*.pkg.dev", "gcr.io", "*.gcr.io"],
        tell: None,
        evidence: &[
            "https://github.com/dotnet/sdk-container-builds/issues/287",
            "https://github.com/kitops-ml/kitops/issues/777",
        ],
        profile: Profile { name: "Google Artifact Registry", monolithic: true, ..Profile::ORDINARY },
    },
    // Wants parts of 5 MiB and more (424), answers `Range: 0-10485759` whatever it has stored (2831), every status
    // GET by 404 (33019), and a POST to an unknown repository not at all (1970).
    Known {
        hosts: &[
            "*.dkr.ecr.*.amazonaws.com",
            "*.dkr.ecr.*.amazonaws.com.cn",
            "*.dkr.ecr-fips.*.amazonaws.com",
        ],
        tell: None,
        evidence: &[
            "https://github.com/dotnet/sdk-container-builds/issues/424",
            "https://github.com/aws/containers-roadmap/issues/2831",
            "https://github.com/dotnet/sdk/issues/33019",
            "https://github.com/aws/containers-roadmap/issues/1970",
            "https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html",
        ],
        profile: Profile {
            name: "Amazon ECR",
            chunk_size: 10 * MIB,
            may_grow: false,
            trust_range: false,
            status: false,
            cuts_unknown: true,
            ..Profile::ORDINARY
        },
    },
    // As its private sibling. It takes 1000 parts and layers of 10 000 MiB: parts of 10 MiB are just enough.
    Known {
        hosts: &["public.ecr.aws"],
        tell: None,
        evidence: &[
            "https://github.com/dotnet/sdk-container-builds/issues/472",
            "https://docs.aws.amazon.com/AmazonECR/latest/public/public-service-quotas.html",
        ],
        profile: Profile {
            name: "Amazon ECR Public",
            chunk_size: 10 * MIB,
            may_grow: false,
            trust_range: false,
            status: false,
            ..Profile::ORDINARY
        },
    },
    // Its own clients send 4 MiB; a single PUT over about 20 MB was answered by 413, and others of gigabytes went
    // through: ordinary chunks are within all of that.
    Known {
        hosts: &["*.azurecr.io", "*.azurecr.cn", "*.azurecr.us"],
        tell: None,
        evidence: &[
            "https://github.com/goharbor/harbor/issues/23015",
            "https://github.com/dotnet/sdk-container-builds/issues/258",
        ],
        profile: Profile { name: "Azure Container Registry", ..Profile::ORDINARY },
    },
    // Its `Range` covers only the last chunk.
    Known {
        hosts: &["*.aliyuncs.com"],
        tell: None,
        evidence: &["https://github.com/regclient/regclient/issues/627"],
        profile: Profile {
            name: "Alibaba Cloud Container Registry",
            trust_range: false,
            ..Profile::ORDINARY
        },
    },
    // Counts one byte too many in a status and in a 416, not in a success: range.rs reads the spelling that goes
    // with it.
    Known {
        hosts: &["quay.io"],
        tell: None,
        evidence: &["https://github.com/quay/quay/blob/master/endpoints/v2/blob.py"],
        profile: Profile { name: "Quay", ..Profile::ORDINARY },
    },
    // Ordinary: chunks of 1 MiB were seen to work, and sessions to be lost.
    Known {
        hosts: &["docker.io", "index.docker.io", "registry-1.docker.io"],
        tell: None,
        evidence: &["https://github.com/regclient/regclient/issues/323"],
        profile: Profile { name: "Docker Hub", ..Profile::ORDINARY },
    },
    // A fork of distribution that lives on with its interface: ordinary. Others run it under names of their own.
    Known {
        hosts: &["registry.gitlab.com"],
        tell: None,
        evidence: &["https://gitlab.com/gitlab-org/container-registry"],
        profile: Profile { name: "GitLab Container Registry", ..Profile::ORDINARY },
    },
    // Ordinary, or a PUT where a PATCH is refused, as with everybody.
    Known {
        hosts: &["*.jfrog.io"],
        // Seen beside `Server: Artifactory/7.9.1`.
        tell: Some(("x-artifactory-id", "")),
        evidence: &[
            "https://github.com/earthly/earthly/issues/1017",
            "https://github.com/docker/buildx/issues/196",
            "https://github.com/moby/buildkit/issues/1130",
            "https://github.com/GoogleContainerTools/jib/issues/3399",
        ],
        profile: Profile { name: "Artifactory", ..Profile::ORDINARY },
    },
    // Ordinary; nodes that share no uploads lose them, as anybody's do.
    Known {
        hosts: &[],
        tell: Some(("server", "Nexus/")),
        evidence: &[
            "https://github.com/sonatype/nexus-public/blob/main/components/nexus-base/src/main/java/org/sonatype/nexus/internal/web/EnvironmentFilter.java",
            "https://github.com/sonatype/nexus-public/issues/383",
        ],
        profile: Profile { name: "Nexus", ..Profile::ORDINARY },
    },
    // distribution behind a proxy that lets bodies of any size through. It answers replayed cookies by 403, and we
    // keep none. Its answers to uploads do not say what it is.
    Known {
        hosts: &[],
        tell: None,
        evidence: &[
            "https://github.com/openai/tart/issues/295",
            "https://github.com/dotnet/sdk/issues/37221",
        ],
        profile: Profile { name: "Harbor", ..Profile::ORDINARY },
    },
    // Ends requests after 60 s, which ordinary chunks stay below. Its answers do not say what it is.
    Known {
        hosts: &[],
        tell: None,
        evidence: &["https://github.com/project-zot/zot/issues/4079"],
        profile: Profile { name: "zot", ..Profile::ORDINARY },
    },
    // Wants parts of one size between limits that it advertises, and those headers are obeyed whoever sends them.
    Known {
        hosts: &[],
        tell: None,
        evidence: &["https://github.com/cloudflare/serverless-registry/blob/main/src/registry/r2.ts"],
        profile: Profile { name: "serverless-registry", equal_parts: true, ..Profile::ORDINARY },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_the_documents() {
        let page = include_str!("../../../docs/registries.md");
        for Known { profile, hosts, .. } in KNOWN {
            let row = page.lines().find(|line| line.starts_with(&format!("| {} |", profile.name)));
            let row = row.unwrap_or_else(|| panic!("{} has no row", profile.name));
            assert!(hosts.first().is_none_or(|host| row.contains(host.trim_start_matches("*."))), "{row}");
            let says = |what: &str| row.contains(what);
            assert_eq!(profile.trust_range, !says("`Range` is not believed"), "{row}");
            assert_eq!(profile.status, !says("status not asked"), "{row}");
            assert_eq!(profile.monolithic, says("takes no chunks"), "{row}");
            assert_eq!(profile.equal_parts, says("chunks of one size"), "{row}");
            let size = format!("chunks of {} MiB", profile.chunk_size / MIB);
            assert!(profile.chunk_size == Profile::ORDINARY.chunk_size || says(&size), "{row}");
        }
    }

    #[test]
    fn hosts_are_known_by_name_in_any_case_and_with_any_port() {
        for (host, name) in [
            ("ghcr.io", "GitHub Container Registry"),
            ("GHCR.io:443", "GitHub Container Registry"),
            ("ghcr.io.", "GitHub Container Registry"),
            ("europe-docker.pkg.dev", "Google Artifact Registry"),
            ("gcr.io", "Google Artifact Registry"),
            ("eu.gcr.io", "Google Artifact Registry"),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "Amazon ECR"),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "Amazon ECR"),
            ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "Amazon ECR"),
            ("public.ecr.aws", "Amazon ECR Public"),
            ("example.azurecr.io", "Azure Container Registry"),
            ("registry.cn-hangzhou.aliyuncs.com", "Alibaba Cloud Container Registry"),
            ("quay.io", "Quay"),
            ("docker.io", "Docker Hub"),
            ("registry.gitlab.com:443", "GitLab Container Registry"),
            ("example.jfrog.io", "Artifactory"),
        ] {
            assert_eq!(profile(host).name, name, "{host}");
        }
    }

    #[test]
    fn everybody_else_is_ordinary() {
        for host in [
            "",
            ":",
            "127.0.0.1:5000",
            "[::1]:5000",
            "notdocker.io",
            "notghcr.io",
            "ghcr.io.example.org",
            ".pkg.dev",
            "pkg.dev",
            "s3.amazonaws.com",
            "1.dkr.ecr..amazonaws.com",
            "ec2-1-2-3-4.compute.amazonaws.com",
        ] {
            assert_eq!(profile(host), Profile::ORDINARY, "{host}");
        }
    }

    #[test]
    fn who_says_what_it_is_is_believed() {
        let answer = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
        };
        for (name, value, known) in [
            ("x-artifactory-id", "6d70dcfd451c8e98:237a9c5d", Some("Artifactory")),
            ("server", "Nexus/3.87.1-01 (PRO)", Some("Nexus")),
            ("server", "nginx/1.22.1", None),
            ("server", "Sonatype Nexus/3", None),
            ("docker-distribution-api-version", "registry/2.0", None),
        ] {
            let found = recognise(&answer(name, value)).map(|profile| profile.name);
            assert_eq!(found, known, "{name}: {value}");
        }
    }

    #[test]
    fn nothing_is_said_without_evidence() {
        for known in KNOWN {
            let linked = known.evidence.iter().all(|link| link.starts_with("https://"));
            assert!(linked && !known.evidence.is_empty(), "{}", known.profile.name);
        }
    }

    #[test]
    fn the_quirks_are_where_they_belong() {
        assert_eq!(profile("ghcr.io").max_chunk, Some(4 * MIB));
        assert!(profile("us-docker.pkg.dev").monolithic);
        let ecr = profile("1.dkr.ecr.eu-west-1.amazonaws.com");
        assert!(!ecr.status && !ecr.trust_range && ecr.cuts_unknown && ecr.chunk_size == 10 * MIB);
        let public = profile("public.ecr.aws");
        assert!(!public.status && !public.trust_range && public.chunk_size == 10 * MIB);
        assert!(!profile("registry.cn-hangzhou.aliyuncs.com").trust_range);
    }
}
