use futures::stream;
use stopcock::CancelStreamExt;
use tokio::signal::ctrl_c;

fn main() {
    let _ = stream::iter(0..3).take_until_cancelled(ctrl_c());
}
