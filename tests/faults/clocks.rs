//! Wall clocks that jump. Nothing about ownership may depend on them.

use stead_tests::load::Load;
use stead_tests::rng::Rng;

use crate::support::{PROGRESS_WITHIN, alone, seconds, three};

const HOUR: i64 = 60 * 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn jumps_of_an_hour_kill_no_node() {
    let _alone = alone().await;
    let mut rng = Rng::from_env();
    let cluster = three(|setup| setup.with_clocks()).await;
    let load = Load::start(cluster.services(), &mut rng);
    load.progress(200, PROGRESS_WITHIN).await;
    let lives = cluster.lives();
    for (node, jump) in [(0, HOUR), (1, -HOUR), (0, 0), (2, HOUR)] {
        cluster.move_clock(node, jump);
        seconds(8).await;
        load.progress(100, PROGRESS_WITHIN).await;
        assert_eq!(cluster.lives(), lives, "a jump of {jump} s killed a node");
    }
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}
