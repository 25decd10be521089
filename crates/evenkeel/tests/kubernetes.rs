//! Services of a cluster that are followed: a real balancer, an API that says what a test wants, peers on addresses of one
//! port. With KUBECONFIG set nothing here speaks to that cluster: each balancer gets a file of its own.

#![cfg(feature = "kubernetes")]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use keel_testkit::FakeState::{Ending, Leaving, NotReady, Ready};
use keel_testkit::{
    Binary, ClusterMood, FakeCluster, FakeState, Peer, PeerBehaviour, Running, free_port, get, wait_until,
};

type Outcome = anyhow::Result<()>;

struct Setup {
    cluster: FakeCluster,
    balancer: Running,
    address: SocketAddr,
    /// Addresses of its own for each test.
    net: u8,
    port: u16,
    peers: Vec<Peer>,
    _folder: tempfile::TempDir,
}

impl Setup {
    /// Starts a balancer that follows `app`, and peers 1 to `peers`.
    fn new(net: u8, peers: u8, api: &'static str, first: &[(u8, FakeState)]) -> anyhow::Result<Self> {
        let (listen, port) = (free_port()?, free_port()?);
        let ip = |host: u8| Ipv4Addr::new(127, 78, net, host);
        let peer = |host: u8| Peer::at((ip(host), port).into(), &format!("app{host}"), PeerBehaviour::Answer);
        let peers = (1..=peers).map(peer).collect::<Result<Vec<_>, _>>()?;
        let cluster = FakeCluster::start(api)?;
        let folder = tempfile::tempdir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, cluster.kubeconfig())?;
        let configuration = format!(
            "events {{}}\n\
             error_log PREFIX/error.log info;\n\
             http {{ access_log off;\n\
                 resolver kubernetes;\n\
                 upstream app {{ zone app 64k; server app.shop service=http resolve; }}\n\
                 server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass http://app; }} }}\n\
             }}\n"
        );
        let kubeconfig = kubeconfig.to_string_lossy().into_owned();
        let slice: Vec<_> = first.iter().map(|(host, state)| (ip(*host).to_string(), *state)).collect();
        cluster.put("app-1", "app", port, &slice);
        // Another Service's are none of its business.
        cluster.put("other-1", "other", port, &[("127.0.0.1".to_owned(), Ready)]);
        let binary = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).with("KUBECONFIG", &kubeconfig);
        let balancer = binary.serve(&configuration)?;
        let address = ([127, 0, 0, 1], listen).into();
        Ok(Self { cluster, balancer, address, net, port, peers, _folder: folder })
    }

    fn put(&self, slice: &str, endpoints: &[(u8, FakeState)]) {
        let ip = |host: u8| Ipv4Addr::new(127, 78, self.net, host).to_string();
        let endpoints: Vec<_> = endpoints.iter().map(|(host, state)| (ip(*host), *state)).collect();
        self.cluster.put(slice, "app", self.port, &endpoints);
    }

    /// Who answered so many requests, with their shares.
    fn shares(&self, requests: usize) -> anyhow::Result<BTreeMap<String, usize>> {
        let mut shares = BTreeMap::new();
        for _ in 0..requests {
            let response = get(self.address, "/")?;
            *shares.entry(response.text()).or_default() += 1;
        }
        Ok(shares)
    }

    fn wait_for(&self, expect: &[u8]) -> Outcome {
        let each = |host: &u8| (format!("app{host}"), 2);
        let expect: BTreeMap<String, usize> = expect.iter().map(each).collect();
        wait_until(&format!("{expect:?} answer"), || {
            self.shares(2 * expect.len()).is_ok_and(|shares| shares == expect)
        })
    }
}

#[test]
fn shares_are_even_over_the_ready_endpoints() -> Outcome {
    let setup = Setup::new(1, 4, "v1", &[(1, Ready), (2, Ready), (3, Ready), (4, NotReady)])?;
    setup.wait_for(&[1, 2, 3])?;
    let shares: Vec<usize> = setup.shares(12)?.into_values().collect();
    assert_eq!(shares, [4, 4, 4]);
    setup.put("app-1", &[(1, Ready), (2, Ready), (3, Ready), (4, Ready)]);
    setup.wait_for(&[1, 2, 3, 4])?;
    let shares: Vec<usize> = setup.shares(12)?.into_values().collect();
    assert_eq!(shares, [3, 3, 3, 3]);
    // Leaving: out, though it still answers.
    setup.put("app-1", &[(1, Ready), (2, Leaving), (3, Ready), (4, Ending)]);
    setup.wait_for(&[1, 3])?;
    let shares: Vec<usize> = setup.shares(12)?.into_values().collect();
    assert_eq!(shares, [6, 6]);
    // One of another slice joins; a slice that goes takes its own along.
    setup.put("app-2", &[(2, Ready)]);
    setup.wait_for(&[1, 2, 3])?;
    setup.cluster.remove("app-1");
    setup.wait_for(&[2])
}

#[test]
fn who_leaves_is_used_when_nobody_is_ready() -> Outcome {
    let setup = Setup::new(2, 2, "v1", &[(1, Ready), (2, NotReady)])?;
    setup.wait_for(&[1])?;
    setup.put("app-1", &[(1, Leaving), (2, NotReady)]);
    setup.cluster.bookmark();
    assert_eq!(setup.shares(4)?, BTreeMap::from([("app1".to_owned(), 4)]));
    setup.put("app-1", &[(1, Leaving), (2, Ready)]);
    setup.wait_for(&[2])?;
    // An empty group is no failure: it is answered, and comes back.
    setup.put("app-1", &[]);
    wait_until("nobody is left", || get(setup.address, "/").is_ok_and(|response| response.status == 502))?;
    setup.put("app-1", &[(1, Ready)]);
    setup.wait_for(&[1])
}

#[test]
fn an_older_api_is_followed_too() -> Outcome {
    let setup = Setup::new(3, 2, "v1beta1", &[(1, Ready)])?;
    setup.wait_for(&[1])?;
    setup.put("app-1", &[(1, Ready), (2, Ready)]);
    setup.wait_for(&[1, 2])
}

#[test]
fn a_watch_that_breaks_is_resumed_and_what_it_missed_is_caught_up() -> Outcome {
    let setup = Setup::new(4, 3, "v1", &[(1, Ready), (2, Ready)])?;
    setup.wait_for(&[1, 2])?;
    let lists = setup.cluster.lists();
    setup.cluster.behave(ClusterMood::Well);
    setup.put("app-1", &[(1, Ready), (2, Ready), (3, Ready)]);
    setup.wait_for(&[1, 2, 3])?;
    assert_eq!(setup.cluster.lists(), lists, "it goes on where it was");
    // Forgotten (410): all is listed anew, and who stays is never gone.
    setup.cluster.forget();
    setup.put("app-1", &[(1, Ready), (3, Ready)]);
    setup.wait_for(&[1, 3])?;
    assert!(setup.cluster.lists() > lists);
    Ok(())
}

#[test]
fn the_last_known_endpoints_stay_while_the_api_is_away() -> Outcome {
    let setup = Setup::new(5, 3, "v1", &[(1, Ready), (2, Ready)])?;
    setup.wait_for(&[1, 2])?;
    for mood in [ClusterMood::Away, ClusterMood::Failing] {
        let says = |text: &str| setup.balancer.error_log().matches(text).count();
        let before = says("endpoints known last stay");
        setup.cluster.behave(mood);
        wait_until("the log says so", || says("endpoints known last stay") > before)?;
        let shares: Vec<usize> = setup.shares(8)?.into_values().collect();
        assert_eq!(shares, [4, 4], "{mood:?}");
        let again = says("can be asked again");
        setup.cluster.behave(ClusterMood::Well);
        wait_until("the log says that it is back", || says("can be asked again") > again)?;
        assert_eq!(says("endpoints known last stay"), before + 1, "once each time");
    }
    assert!(!setup.balancer.error_log().contains("client error"), "{}", setup.balancer.error_log());
    // What changed meanwhile is there within two seconds.
    setup.cluster.behave(ClusterMood::Away);
    wait_until("it is away", || setup.balancer.error_log().matches("known last stay").count() == 3)?;
    setup.put("app-1", &[(2, Ready), (3, Ready)]);
    setup.cluster.behave(ClusterMood::Well);
    let begun = Instant::now();
    setup.wait_for(&[2, 3])?;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    Ok(())
}

#[test]
fn a_balancer_starts_without_the_api_and_fills_its_pool_when_that_comes() -> Outcome {
    let setup = Setup::new(6, 1, "v1", &[])?;
    wait_until("it serves", || get(setup.address, "/").is_ok_and(|response| response.status == 502))?;
    setup.put("app-1", &[(1, Ready)]);
    setup.wait_for(&[1])?;
    assert_eq!(setup.peers.len(), 1);
    Ok(())
}
