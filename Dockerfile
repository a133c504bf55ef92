# The image of `amends`, for docker-compose.yml and for deployments of yours: docker build --tag amends .
FROM golang:1.26 AS build
WORKDIR /src
COPY . .
RUN CGO_ENABLED=0 go build -buildvcs=false -trimpath -o /amends ./cmd/amends

FROM debian:12-slim
# What --kafka-tls, --webhook and OIDC issuers are believed by.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A number, so that Kubernetes can tell that it is not root.
RUN useradd --system --user-group --uid 900 amends
COPY --from=build /amends /usr/local/bin/amends
USER 900
ENTRYPOINT ["amends"]
