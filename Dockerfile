# Build with every tool, run with none. Kubernetes probes /livez, /readyz and /startupz, so there is no HEALTHCHECK.
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc .swcrc ./
RUN npm ci --ignore-scripts
COPY src src
COPY migrations migrations
RUN npx swc src migrations -d dist --ignore '**/*.spec.ts' && npm prune --omit=dev --omit=optional --ignore-scripts

FROM ${NODE_IMAGE}
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build --chown=root:root /app/node_modules node_modules
COPY --from=build --chown=root:root /app/dist dist
COPY --chown=root:root package.json ./
COPY --chown=root:root config config
# The only place that is written to: outcomes that could not reach the database. Mount a volume that outlives the container.
RUN mkdir -p /var/lib/novix && chown node:node /var/lib/novix
ENV NOVIX_DATA_DIR=/var/lib/novix
VOLUME /var/lib/novix
USER node
EXPOSE 8080
ENTRYPOINT ["node", "dist/src/main.js"]
