use futures::stream;
use stopcock::CancelStreamExt;
use tokio_util::sync::CancellationToken;

fn main() {
    let token = CancellationToken::new();
    let _ = stream::iter(0..3).take_until_cancelled(&token);
    let _ = stream::pending::<u32>().cancel_on_drop(token);
}
