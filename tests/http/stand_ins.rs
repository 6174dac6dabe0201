// The parts of axum and tonic that the examples of `stopcock::http` use, with the bounds of the real ones. Compiling
// those for two examples would take too long.

#[allow(dead_code, clippy::all)]
mod stand_ins {
    use bytes::Bytes;
    use http::{Request, Response};
    use std::{
        error::Error,
        future::{Future, Ready},
        task::{Context, Poll},
    };
    use tower::{Layer, Service};

    pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

    #[derive(Clone)]
    pub struct Inner;

    impl<B> Service<Request<B>> for Inner {
        type Response = Response<Body>;
        type Error = std::convert::Infallible;
        type Future = Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            unimplemented!()
        }

        fn call(&mut self, _: Request<B>) -> Self::Future {
            unimplemented!()
        }
    }

    /// The bounds that both have on a service under a layer.
    pub trait Layered: Clone + Send + Sync + 'static {}

    impl<S, B> Layered for S
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
    }

    pub mod axum {
        use super::*;

        pub struct Extension<T>(pub T);

        pub struct Router;

        impl Router {
            pub fn new() -> Self {
                Self
            }

            pub fn route(self, _: &str, (): ()) -> Self {
                self
            }

            pub fn layer<L>(self, _: L) -> Self
            where
                L: Layer<Inner> + Clone + Send + Sync + 'static,
                L::Service: Layered,
            {
                self
            }
        }

        pub struct Serve;

        pub fn serve(_: tokio::net::TcpListener, _: Router) -> Serve {
            Serve
        }

        impl Serve {
            pub async fn with_graceful_shutdown<F>(self, _: F) -> std::io::Result<()>
            where
                F: Future<Output = ()> + Send + 'static,
            {
                Ok(())
            }
        }

        pub mod body {
            pub struct Body;

            impl Body {
                pub fn from_stream<S>(_: S) -> Self
                where
                    S: futures::Stream + Send + 'static,
                {
                    Self
                }
            }
        }

        pub mod routing {
            pub fn get<H, A, Fut>(_: H)
            where
                H: FnOnce(A) -> Fut,
                Fut: Future<Output = super::body::Body> + Send,
            {
            }

            use std::future::Future;
        }
    }

    pub mod tonic {
        use super::*;

        #[derive(Debug)]
        pub struct Status;

        impl Status {
            pub fn deadline_exceeded(_: String) -> Self {
                Self
            }

            pub fn unavailable(_: String) -> Self {
                Self
            }
        }

        pub struct Message<T>(T, http::Extensions);

        pub use Message as Request;
        pub use Message as Response;

        impl<T> Message<T> {
            pub fn new(message: T) -> Self {
                Self(message, http::Extensions::new())
            }

            pub fn into_inner(self) -> T {
                self.0
            }

            pub fn extensions(&self) -> &http::Extensions {
                &self.1
            }

            pub fn extensions_mut(&mut self) -> &mut http::Extensions {
                &mut self.1
            }
        }

        pub mod transport {
            use super::*;

            pub type Channel = Inner;

            impl Channel {
                pub fn from_static(_: &'static str) -> Self {
                    Self
                }

                pub fn connect_lazy(self) -> Self {
                    self
                }
            }

            pub struct Server;

            impl Server {
                pub fn builder() -> Self {
                    Self
                }

                pub fn layer<L>(self, _: L) -> Self
                where
                    L: Layer<Inner>,
                    L::Service: Layered,
                {
                    self
                }

                pub fn add_service<S>(self, _: S) -> Self {
                    self
                }

                pub async fn serve(self, _: std::net::SocketAddr) -> Result<(), Status> {
                    Ok(())
                }
            }
        }
    }

    /// What tonic generates from a `.proto` file.
    pub mod quotes {
        use super::{
            Layered,
            tonic::{Request, Response, Status},
        };

        #[derive(Clone)]
        pub struct QuotesClient<T>(T);

        impl<T: Layered> QuotesClient<T> {
            pub fn new(channel: T) -> Self {
                Self(channel)
            }

            pub async fn watch(
                &mut self,
                _: Request<String>,
            ) -> Result<Response<futures::stream::Pending<Result<u64, Status>>>, Status> {
                Ok(Response::new(futures::stream::pending()))
            }
        }
    }
}

#[allow(unused_imports)]
use stand_ins::{axum, quotes, tonic};
