import { loadEnv } from '../src/env.ts';
import { completeSettings } from '../src/gateway-parts.ts';
import { startGateway } from '../src/gateway.ts';
import { createLogger } from '../src/shared/logger.ts';

// The gateway as in production, everything on; it only tells its parent where it listens.
const { env } = await loadEnv();
const gateway = await startGateway(completeSettings(env), createLogger(env.logLevel));
process.send?.({ url: gateway.url });
process.once('SIGTERM', () => {
  gateway.close().then(() => process.exit(0), () => process.exit(1));
});
