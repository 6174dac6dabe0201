//! What `tonic-prost-build` generates from this, without the unused parts, so that no `protoc` is needed:
//!
//! ```proto
//! package ticks;
//!
//! service Ticker {
//!     rpc Ticks(Ask) returns (stream Tick);
//! }
//!
//! message Ask {
//!     uint64 millis = 1;
//!     repeated uint64 budgets = 2;
//! }
//!
//! message Tick {
//!     uint64 n = 1;
//!     repeated uint64 budgets = 2;
//! }
//! ```

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ask {
    /// The time between two ticks.
    #[prost(uint64, tag = "1")]
    pub(crate) millis: u64,
    /// The rest of the deadline at each service, in microseconds.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) budgets: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Tick {
    #[prost(uint64, tag = "1")]
    pub(crate) n: u64,
    /// Those of the request, and of the last service.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) budgets: Vec<u64>,
}

pub(crate) mod ticker_client {
    use super::{Ask, Tick};
    use tonic::{
        Request, Response, Status, Streaming,
        body::Body,
        client::{Grpc, GrpcService},
        codegen::{self, Bytes, GrpcMethod, StdError, http::uri::PathAndQuery},
    };
    use tonic_prost::ProstCodec;

    #[derive(Debug, Clone)]
    pub(crate) struct TickerClient<T> {
        inner: Grpc<T>,
    }

    impl<T> TickerClient<T>
    where
        T: GrpcService<Body>,
        T::Error: Into<StdError>,
        T::ResponseBody: codegen::Body<Data = Bytes> + Send + 'static,
        <T::ResponseBody as codegen::Body>::Error: Into<StdError> + Send,
    {
        pub(crate) fn new(inner: T) -> Self {
            let inner = Grpc::new(inner);
            Self { inner }
        }

        pub(crate) async fn ticks(
            &mut self,
            mut request: Request<Ask>,
        ) -> Result<Response<Streaming<Tick>>, Status> {
            let ready = self.inner.ready().await;
            ready.map_err(|error| {
                Status::unknown(format!("Service was not ready: {}", error.into()))
            })?;
            let path = PathAndQuery::from_static("/ticks.Ticker/Ticks");
            let method = GrpcMethod::new("ticks.Ticker", "Ticks");
            request.extensions_mut().insert(method);
            let codec = ProstCodec::default();
            self.inner.server_streaming(request, path, codec).await
        }
    }
}

pub(crate) mod ticker_server {
    use super::{Ask, Tick};
    use std::{
        convert::Infallible,
        sync::Arc,
        task::{Context, Poll},
    };
    use tonic::{
        Request, Response, Status, async_trait,
        body::Body,
        codegen::{self, BoxFuture, Service, StdError, http, tokio_stream::Stream},
        server::{Grpc, NamedService, ServerStreamingService},
    };
    use tonic_prost::ProstCodec;

    #[async_trait]
    pub(crate) trait Ticker: Send + Sync + 'static {
        /// Server streaming response type for the Ticks method.
        type TicksStream: Stream<Item = Result<Tick, Status>> + Send + 'static;

        async fn ticks(&self, request: Request<Ask>)
        -> Result<Response<Self::TicksStream>, Status>;
    }

    #[derive(Debug)]
    pub(crate) struct TickerServer<T> {
        inner: Arc<T>,
    }

    impl<T> TickerServer<T> {
        pub(crate) fn new(inner: T) -> Self {
            let inner = Arc::new(inner);
            Self { inner }
        }
    }

    impl<T> Clone for TickerServer<T> {
        fn clone(&self) -> Self {
            let inner = Arc::clone(&self.inner);
            Self { inner }
        }
    }

    impl<T, B> Service<http::Request<B>> for TickerServer<T>
    where
        T: Ticker,
        B: codegen::Body + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Self::Error>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<B>) -> Self::Future {
            let ticks = Ticks(Arc::clone(&self.inner));
            Box::pin(async move {
                if request.uri().path() != "/ticks.Ticker/Ticks" {
                    return Ok(Status::unimplemented("").into_http());
                }
                let mut grpc = Grpc::new(ProstCodec::default());
                Ok(grpc.server_streaming(ticks, request).await)
            })
        }
    }

    struct Ticks<T>(Arc<T>);

    impl<T: Ticker> ServerStreamingService<Ask> for Ticks<T> {
        type Response = Tick;
        type ResponseStream = T::TicksStream;
        type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

        fn call(&mut self, request: Request<Ask>) -> Self::Future {
            let inner = Arc::clone(&self.0);
            Box::pin(async move { inner.ticks(request).await })
        }
    }

    impl<T> NamedService for TickerServer<T> {
        const NAME: &'static str = "ticks.Ticker";
    }
}
