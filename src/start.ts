import { anySandbox, loadEnv, type SandboxParts } from './env.ts';
import type { Gateway } from './gateway.ts';
import type { Sandbox } from './sandbox/sandbox.ts';

const TOKEN_TTL_SECONDS = 12 * 3_600;

/** Starts the gateway, and says how to use it. Exit status 1 with one line per fault where the settings are not good. */
export async function main(): Promise<void> {
  const { env, sandbox: parts } = await loadEnv();
  // Loaded once the settings are known to be good: a start that is refused should not have to load all of it first.
  const [{ startGateway }, { completeSettings }, { createLogger }] = await Promise.all([import('./gateway.ts'), import('./gateway-parts.ts'), import('./shared/logger.ts')]);
  const logger = createLogger(env.logLevel);
  const startedMs = performance.now();
  // Production never loads the sandbox's code.
  const sandbox = anySandbox(parts) ? await (await import('./sandbox/sandbox.ts')).startSandbox(env, parts) : undefined;
  let gateway: Gateway;
  try {
    gateway = await startGateway(sandbox?.settings ?? completeSettings(env), logger);
    if (sandbox?.issuer) await (await import('./sandbox/demo-tenants.ts')).createDemoTenants(gateway.parts);
  } catch (error) {
    await sandbox?.close();
    throw error;
  }
  stopOnSignals(gateway, sandbox);
  logger.info({ url: gateway.url, managementUrl: gateway.managementUrl, startMs: Math.round(performance.now() - startedMs) }, 'gateway ready');
  if (sandbox) process.stdout.write(await sandboxBanner(gateway, sandbox, parts));
}

/** The first signal stops in order; the second stops waiting for streams. */
function stopOnSignals(gateway: Gateway, sandbox: Sandbox | undefined): void {
  const { logger } = gateway.parts;
  let stopping: Promise<void> | undefined;
  const stop = (signal: string): void => {
    if (stopping) {
      gateway.hurry();
      return;
    }
    logger.info({ signal }, 'stopping: no new connections, answers under way may finish');
    stopping = (async () => {
      await gateway.close();
      await sandbox?.close();
      logger.info('stopped');
      logger.flush(() => process.exit(0));
    })().catch((error: unknown) => {
      logger.fatal({ err: error }, 'the stop failed');
      logger.flush(() => process.exit(1));
    });
  };
  process.on('SIGTERM', () => stop('SIGTERM'));
  process.on('SIGINT', () => stop('SIGINT'));
}

async function sandboxBanner(gateway: Gateway, sandbox: Sandbox, parts: SandboxParts): Promise<string> {
  const lines = ['', '  SANDBOX: not for production. Imitated here:', ...sandbox.facts.map(({ part, address }) => `    - ${part}: ${address}`), ''];
  lines.push(`  gateway     ${gateway.url}/v1`, `  API docs    ${gateway.url}/docs`, `  dashboard   ${gateway.url}/dashboard (comes with a later release)`);
  if (gateway.managementUrl !== undefined) lines.push(`  management  ${gateway.managementUrl}`);
  if (!sandbox.issuer) return `${lines.join('\n')}\n\n`;
  const token = await sandbox.issuer.mint({ tenant: 'acme', subject: 'dev@acme.example', roles: ['developer'], ttlSeconds: TOKEN_TTL_SECONDS });
  lines.push(
    '', '  tenants     acme (standard), globex (enterprise), initech (government)', `  token for acme, 12 hours (more: npx novix token mint --tenant globex --sub me --role developer):`, '', token, '',
    parts.provider ? '  Try it:' : '  Try it (this calls the real provider, and costs money):', '',
    `curl -N ${gateway.url}/v1/chat/completions -H 'authorization: Bearer ${token}' -H 'content-type: application/json' -d '{"model":"grok-beta","stream":true,"messages":[{"role":"user","content":"Say hello."}]}'`,
    '',
  );
  return `${lines.join('\n')}\n`;
}
