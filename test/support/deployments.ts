import { createHash } from 'node:crypto';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startGateway, type Gateway } from '../../src/gateway.ts';
import { BUILT_IN_CONFIG } from '../../src/shared/config-files.ts';
import { systemClock, type Clock } from '../../src/shared/clock.ts';
import { createLogger } from '../../src/shared/logger.ts';
import { HELLO, type Harness } from './harness.ts';

// Deployments as tests of the admin API make them, and a second gateway that has to hear of them.

/** A deployment as the admin API shows it. */
export interface DeploymentView {
  id: string;
  model: string;
  base_url: string;
  source: 'config' | 'admin';
  region: string;
  accelerator: string;
  weight: number;
  max_concurrency: number;
  price_percent: number;
  upstream_model?: string;
  zdr?: boolean;
  api_key?: string;
  tls?: { cert?: string; key?: string; ca?: string };
  created_at?: string;
  updated_at?: string;
}

/** A breaker as the admin API shows it. */
export interface BreakerView {
  deployment: string;
  model: string;
  state: 'closed' | 'open' | 'half_open';
  failures: number;
  open_until: string | null;
  forced: boolean;
}

export type AdminCall = (method: string, path: string, body?: unknown) => Promise<Response>;

/** Calls `/admin/v1…` with a token, at the harness' gateway or at another one. */
export function adminOf(harness: Pick<Harness, 'url'>, token: string, url = harness.url): AdminCall {
  return (method, path, body) => fetch(`${url}/admin/v1${path}`, {
    method, headers: { authorization: `Bearer ${token}`, ...(body !== undefined && { 'content-type': 'application/json' }) },
    ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
}

/** Makes a deployment of grok-beta; fails where the gateway does not. */
export async function deploy(call: AdminCall, fields: Record<string, unknown>): Promise<DeploymentView> {
  return madeBy(await call('POST', '/deployments', { model: 'grok-beta', ...fields }), 201);
}

/** The body of an answer that has to be a good one. */
export async function madeBy<T = DeploymentView>(response: Response, status = 200): Promise<T> {
  const text = await response.text();
  if (response.status !== status) throw new Error(`${response.status} in place of ${status}: ${text}`);
  return JSON.parse(text) as T;
}

/** Takes away whatever the admin API has stored. */
export async function removeStored(call: AdminCall): Promise<void> {
  const { data } = await madeBy<{ data: DeploymentView[] }>(await call('GET', '/deployments?limit=200'));
  for (const { id } of data.filter(({ source }) => source === 'admin')) {
    const response = await call('DELETE', `/deployments/${id}`);
    if (response.status !== 204) throw new Error(`${id} was not removed: ${await response.text()}`);
  }
}

/** Another gateway on the database of the harness, as a second replica is. */
export async function startReplica(harness: Harness, change: Partial<Harness['settings']> = {}, clock: Clock = systemClock): Promise<Gateway> {
  return startGateway({ ...harness.settings, spoolDir: `${harness.settings.spoolDir}-2`, ...change }, createLogger('silent'), clock);
}

/** One completion of grok-beta at any gateway. */
export function completeAt(url: string, token: string, body: Record<string, unknown> = {}, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...headers }, body: JSON.stringify({ model: 'grok-beta', messages: HELLO, ...body }),
  });
}

/** Which deployment served; the answer has to be a good one. */
export async function servedBy(answer: Response | Promise<Response>): Promise<string> {
  const response = await answer;
  const text = await response.text();
  if (response.status !== 200) throw new Error(`${response.status}: ${text}`);
  return response.headers.get('x-novix-deployment')!;
}

/** A configuration folder with a `models.yaml` whose deployments, and fallbacks of aliases, are those given; YAML. */
export async function modelsFolder(deployments: string, { aliases, policies }: { aliases?: string; policies?: string } = {}): Promise<string> {
  const builtIn = await readFile(join(BUILT_IN_CONFIG, 'models.yaml'), 'utf8');
  const [head, models] = [builtIn.slice(0, builtIn.indexOf('\naliases:')), builtIn.slice(builtIn.indexOf('\nmodels:'))];
  const aliasLines = aliases ?? builtIn.slice(builtIn.indexOf('\naliases:') + 10, builtIn.indexOf('\n\n# Where calls go'));
  const folder = await mkdtemp(join(tmpdir(), 'novix-test-config-'));
  await writeFile(join(folder, 'models.yaml'), `${head}\naliases:\n${aliasLines}\n\ndeployments:\n${deployments}\n${models}`);
  if (policies !== undefined) await writeFile(join(folder, 'policies.yaml'), policies);
  return folder;
}

/** A clock that tests move by hand; wall time goes on by itself. */
export function movableClock(): Clock & { advance(ms: number): void } {
  let aheadMs = 0;
  return {
    nowMs: () => Date.now(),
    monotonicMs: () => performance.now() + aheadMs,
    advance: (ms) => {
      aheadMs += ms;
    },
  };
}

/** Of a sorted copy; `share` 0.5 is the median. */
export function quantile(values: readonly number[], share: number): number {
  return values.toSorted((left, right) => left - right)[Math.min(values.length - 1, Math.floor(values.length * share))]!;
}

export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
