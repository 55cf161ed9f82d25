import { ConfigModule } from '@nestjs/config';
import { existsSync, readFileSync } from 'node:fs';
import { parseEnv as parseEnvFile } from 'node:util';
import { isIP } from 'node:net';
import { loadIssuers, SIGNATURE_ALGORITHMS, type IssuerSettings } from './auth/identity-config.ts';
import { isSealed, providerOf } from './secrets/secret-provider.ts';
import { parseSecretSettings, type SecretSettings } from './secrets/secret-settings.ts';
import { isLoopback } from './shared/loopback.ts';
import { originFault } from './shared/origin-fault.ts';
import { parseTlsOrigin } from './siem/tls-origin.ts';

/** Settings of the process, parsed once. Durations end in `Ms`, sizes in `Bytes`. */
export interface Env extends SecretSettings {
  http: { host: string; port: number; managementPort: number | undefined; bodyLimitBytes: number };
  /** Undefined: plain HTTP, for whatever ends TLS in front of it. */
  tls: {
    certFile: string;
    keyFile: string;
    clientCaFile: string | undefined;
    clientCrlFile: string | undefined;
    clientCertificates: 'required' | 'optional';
    /** Key exchange groups that are accepted; empty for OpenSSL's own choice. */
    groups: readonly string[];
  } | undefined;
  /** Networks of proxies that are believed when they say who called them. */
  trustedProxies: readonly string[];
  provider: {
    /** Sent upstream as `x-api-version` and written into each record. */
    apiVersion: string | undefined;
    /** Undefined: the sandbox's emulator serves. Sealed (`enc:v1:…`) as long as Vault has not opened it: read it through `OpenedSecrets`. */
    apiKey: string | undefined;
    endpoint: string;
    clientCertFile: string | undefined;
    clientKeyFile: string | undefined;
    caFile: string | undefined;
    connectTimeoutMs: number;
    idleTimeoutMs: number;
    /** Undefined: the model's own, or the default. */
    firstByteTimeoutMs: number | undefined;
    totalTimeoutMs: number;
    retryMax: number;
    retryBackoffMs: number;
    breakerFailures: number;
    breakerRecoveryMs: number;
  };
  /** The company's way out, where there is no direct one. */
  egress: {
    proxyUrl: string | undefined;
    noProxy: string | undefined;
    /** Exact origins that the admin API may name although they are not https, or not public. */
    allowedOrigins: readonly string[];
  };
  /** Where alerts are told, and the secret that signs them (base64). Undefined: they stand in the log and the admin API. */
  alertWebhook: { url: string; secret: string } | undefined;
  /** What callers get who send none of these. */
  defaults: {
    model: string;
    maxTokensCap: number;
    temperature: number | undefined;
    topP: number | undefined;
    frequencyPenalty: number | undefined;
    presencePenalty: number | undefined;
  };
  audit: {
    /** What checkpoints are signed with; undefined in production: they are not signed. */
    signingKeyFile: string | undefined;
    /** Where the last checkpoint is kept beside the database. */
    checkpointFile: string;
    /** How long leaves are kept; undefined: for ever. */
    retentionDays: number | undefined;
  };
  /** Of `AUTH_*`. */
  identity: IssuerSettings | undefined;
  /** Of `config/identity.yaml`. Without any of either, the sandbox's local issuer serves. */
  issuers: readonly IssuerSettings[];
  authFailuresPerMinute: number;
  databaseUrl: string | undefined;
  /** Folder with an operator's own files of `config/`; those that it lacks are the built-in ones. */
  configDir: string | undefined;
  spoolDir: string;
  /** Where the roots of payload keys are kept: in a folder that no backup of the database includes, or by Vault where there is one and no folder is named. */
  payloadRoots: { keeper: 'file' | 'vault'; folder: string };
  /** The folder below which SIEM sinks of type file write. */
  siemDir: string;
  drainDelayMs: number;
  shutdownGraceMs: number;
  logLevel: string;
}

/** Injection token of the {@link Env}. */
export const ENV = Symbol('env');

/** Which parts the sandbox has to supply. */
export interface SandboxParts {
  database: boolean;
  provider: boolean;
  identity: boolean;
}

/** A start refused because of settings: one line per fault. */
export class EnvError extends Error {
  override readonly name = 'EnvError';
  constructor(readonly faults: readonly string[]) {
    super(faults.join('\n'));
  }
}

const ENV_FILE = '.env';
const OWN_PREFIXES = ['XAI_', 'AUTH_', 'TLS_', 'AUDIT_', 'NOVIX_'];
const KNOWN_NAMES = [
  'XAI_API_VERSION', 'XAI_API_KEY', 'XAI_API_ENDPOINT', 'XAI_MODEL', 'XAI_MAX_TOKENS', 'XAI_TEMPERATURE', 'XAI_TOP_P', 'XAI_FREQUENCY_PENALTY',
  'XAI_PRESENCE_PENALTY', 'XAI_CLIENT_CERT', 'XAI_CLIENT_KEY', 'XAI_CA', 'XAI_CONNECT_TIMEOUT_MS', 'XAI_IDLE_TIMEOUT_MS', 'XAI_FIRST_BYTE_TIMEOUT_MS',
  'XAI_TOTAL_TIMEOUT_MS', 'XAI_RETRY_MAX', 'XAI_RETRY_BACKOFF_MS', 'XAI_BREAKER_FAILURES', 'XAI_BREAKER_RECOVERY_MS',
  'AUTH_ISSUER', 'AUTH_AUDIENCE', 'AUTH_JWKS_URI', 'AUTH_JWKS_FILE', 'AUTH_ALGORITHMS', 'AUTH_FAILURES_PER_MINUTE',
  'TLS_CERT', 'TLS_KEY', 'TLS_CLIENT_CA', 'TLS_CLIENT_CRL', 'TLS_CLIENT_AUTH', 'TLS_GROUPS', 'AUDIT_SIGNING_KEY_FILE', 'AUDIT_CHECKPOINT_FILE', 'AUDIT_RETENTION_DAYS', 'NOVIX_DATA_DIR', 'NOVIX_CONFIG_DIR', 'NOVIX_KEY_FILE', 'NOVIX_SIEM_DIR', 'NOVIX_PAYLOAD_KEY_DIR',
  'NOVIX_ALERT_WEBHOOK_URL', 'NOVIX_ALERT_WEBHOOK_SECRET',
];
/** Settings whose meaning has not been built. To ignore one would be less safe than to refuse it. */
const NOT_YET = ['REDIS_URL'];
const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'];
export const XAI_ENDPOINT_DEFAULT = 'https://api.x.ai/v1';

/** Reads `.env` and the environment, with `${VAR}` expanded. The only place that touches `process.env`. */
export async function loadEnv(): Promise<{ env: Env; sandbox: SandboxParts }> {
  await readEnvFile();
  const configDir = process.env['NOVIX_CONFIG_DIR']?.trim();
  const env = await withOpenedKey(parseEnv(process.env, loadIssuers(configDir === '' ? undefined : configDir)));
  return { env, sandbox: sandboxParts(env) };
}

/** What sealing and opening takes, whatever else is set: a key is sealed before the setting that is to hold it can be good. */
export async function loadSecretSettings(): Promise<SecretSettings> {
  await readEnvFile();
  const faults: string[] = [];
  const settings = parseSecretSettings(textsOf(process.env), faults);
  if (faults.length > 0) throw new EnvError(faults);
  return settings;
}

async function readEnvFile(): Promise<void> {
  // Given all of the file, so that a value may name one that stands further down.
  const file = existsSync(ENV_FILE) ? parseEnvFile(readFileSync(ENV_FILE, 'utf8')) : {};
  await ConfigModule.forRoot({ envFilePath: ENV_FILE, expandVariables: { processEnv: { ...file, ...process.env } as Record<string, string> } });
}

/** Reads settings, with a blank one as good as none. */
function textsOf(source: Readonly<Record<string, string | undefined>>): (name: string) => string | undefined {
  return (name) => {
    const value = source[name]?.trim();
    return value === undefined || value === '' ? undefined : value;
  };
}

/** The provider's key as it is, where a file on this machine opens it. What only Vault opens is opened by the running gateway: Vault may be away now. */
async function withOpenedKey(env: Env): Promise<Env> {
  const { apiKey } = env.provider;
  const sealed = apiKey !== undefined && isSealed(apiKey) && providerOf(apiKey) !== 'vault';
  if (!sealed && env.ageIdentityFile === undefined) return env;
  try {
    if (env.ageIdentityFile !== undefined) (await import('./secrets/age-identities.ts')).readIdentities(env.ageIdentityFile);
    return sealed ? { ...env, provider: { ...env.provider, apiKey: await openOnce(env, 'XAI_API_KEY', apiKey) } } : env;
  } catch (error) {
    const message = error instanceof Error ? error.message : 'the key file cannot be read';
    throw new EnvError([/^(XAI_API_KEY|AGE_IDENTITY_FILE|NOVIX_KEY_FILE):/.test(message) ? message : `XAI_API_KEY: cannot be opened: ${message}`]);
  }
}

async function openOnce(env: Env, name: string, sealed: string): Promise<string> {
  const [{ Secrets }, { systemClock }] = await Promise.all([import('./secrets/secrets.ts'), import('./shared/clock.ts')]);
  return new Secrets(env, { clock: systemClock, random: Math.random, onSecret: () => {}, onNotice: () => {} }).open(name, sealed); // the gateway keeps it out of its log
}

/**
 * Parses and checks all settings.
 *
 * @throws {EnvError} with one line per fault, each naming the variable and what it takes, never its value where it may be secret
 */
export function parseEnv(source: Readonly<Record<string, string | undefined>>, issuers: readonly IssuerSettings[] = []): Env {
  const faults: string[] = [];
  const text = textsOf(source);
  const number = (name: string, low: number, high: number, whole: boolean): number | undefined => {
    const value = text(name);
    if (value === undefined) return undefined;
    const parsed = /^-?\d+(\.\d+)?$/.test(value) ? Number(value) : Number.NaN;
    if (Number.isFinite(parsed) && parsed >= low && parsed <= high && (!whole || Number.isInteger(parsed))) return parsed;
    faults.push(`${name}: expected a ${whole ? 'whole number' : 'number'} from ${low} to ${high}`);
    return undefined;
  };
  const whole = (name: string, fallback: number, low: number, high: number): number => number(name, low, high, true) ?? fallback;

  faults.push(...unknownNames(source));
  for (const name of NOT_YET) if (text(name) !== undefined) faults.push(`${name}: this release does not support it yet, and will not ignore it; unset it`);
  const secretSettings = parseSecretSettings(text, faults);
  const { production, ageIdentityFile, dataDir } = secretSettings;

  const aiProvider = text('AI_PROVIDER');
  if (aiProvider !== undefined && aiProvider !== 'xai') faults.push('AI_PROVIDER: only "xai" is supported');
  const apiKey = text('XAI_API_KEY');
  const sealedBy = apiKey !== undefined && isSealed(apiKey) ? providerOf(apiKey) ?? 'nobody' : undefined;
  if (sealedBy === 'nobody') faults.push('XAI_API_KEY: what follows enc: is no sealed value (v1:local:…, v1:age:… or v1:vault:…); a plain key does not belong there. Seal it with "npx novix secret seal --name XAI_API_KEY"');
  if (sealedBy === 'age' && ageIdentityFile === undefined) faults.push('XAI_API_KEY: is sealed by age, so AGE_IDENTITY_FILE has to name the identity');
  if (sealedBy === 'vault' && text('VAULT_ADDR') === undefined) faults.push('XAI_API_KEY: is sealed by vault, so VAULT_ADDR, VAULT_TRANSIT_KEY and a login (VAULT_TOKEN, VAULT_ROLE_ID with VAULT_SECRET_ID, or VAULT_K8S_ROLE) are needed');
  for (const name of ['XAI_API_KEY', 'XAI_API_VERSION']) if (!/^[\x21-\x7e]*$/.test(text(name) ?? '')) faults.push(`${name}: goes into a header; expected visible ASCII characters without spaces`);
  const endpoint = text('XAI_API_ENDPOINT') ?? XAI_ENDPOINT_DEFAULT;
  const endpointFault = originFault(endpoint) ?? (/[?#]/.test(endpoint) ? 'expected no query and no fragment' : undefined);
  if (endpointFault !== undefined) faults.push(`XAI_API_ENDPOINT: ${endpointFault}`);
  const clientCertFile = text('XAI_CLIENT_CERT');
  const clientKeyFile = text('XAI_CLIENT_KEY');
  if ((clientCertFile === undefined) !== (clientKeyFile === undefined)) faults.push('XAI_CLIENT_CERT, XAI_CLIENT_KEY: give both or neither');

  const host = text('HOST') ?? (production ? '0.0.0.0' : '127.0.0.1');
  if (isIP(host) === 0 && host !== 'localhost') faults.push('HOST: expected an IP address or "localhost"');
  const logLevel = text('LOG_LEVEL') ?? 'info';
  if (!LOG_LEVELS.includes(logLevel)) faults.push(`LOG_LEVEL: expected one of ${LOG_LEVELS.join(', ')}`);
  const databaseUrl = text('DATABASE_URL');
  if (databaseUrl !== undefined && !/^postgres(ql)?:\/\//.test(databaseUrl)) faults.push('DATABASE_URL: expected postgresql://user:password@host:port/database');

  const proxyUrl = text('HTTPS_PROXY') ?? text('https_proxy');
  if (proxyUrl !== undefined && !(URL.canParse(proxyUrl) && /^https?:$/.test(new URL(proxyUrl).protocol))) faults.push('HTTPS_PROXY: expected the URL of an http or https proxy');

  const allowedOrigins = (text('EGRESS_ALLOW') ?? '').split(',').map((origin) => origin.trim()).filter((origin) => origin !== '');
  if (!allowedOrigins.every((origin) => parseTlsOrigin(origin)?.origin === origin || (URL.canParse(origin) && /^https?:/.test(origin) && new URL(origin).origin === origin))) faults.push('EGRESS_ALLOW: expected exact origins separated by commas, such as https://grok.example:8443 or tls://syslog.example:6514');

  const trustedProxies = (text('TRUSTED_PROXIES') ?? '').split(',').map((network) => network.trim()).filter((network) => network !== '');
  if (!trustedProxies.every(isNetwork)) faults.push('TRUSTED_PROXIES: expected addresses or networks separated by commas, such as 10.0.0.0/8');

  const env: Env = {
    ...secretSettings,
    http: {
      host,
      port: whole('PORT', 8080, 0, 65_535),
      managementPort: number('MANAGEMENT_PORT', 0, 65_535, true),
      bodyLimitBytes: whole('BODY_LIMIT_BYTES', 32 * 1024 * 1024, 1024, 1024 * 1024 * 1024),
    },
    tls: parseTls(text, faults),
    trustedProxies,
    provider: {
      apiVersion: text('XAI_API_VERSION'),
      apiKey,
      endpoint: endpoint.replace(/\/+$/, ''),
      clientCertFile,
      clientKeyFile,
      caFile: text('XAI_CA'),
      connectTimeoutMs: whole('XAI_CONNECT_TIMEOUT_MS', 3050, 1, 600_000),
      idleTimeoutMs: whole('XAI_IDLE_TIMEOUT_MS', 30_000, 1, 3_600_000),
      firstByteTimeoutMs: number('XAI_FIRST_BYTE_TIMEOUT_MS', 1, 3_600_000, true),
      totalTimeoutMs: whole('XAI_TOTAL_TIMEOUT_MS', 900_000, 1, 7_200_000),
      retryMax: whole('XAI_RETRY_MAX', 3, 0, 10),
      retryBackoffMs: whole('XAI_RETRY_BACKOFF_MS', 500, 1, 60_000),
      breakerFailures: whole('XAI_BREAKER_FAILURES', 5, 1, 1_000_000),
      breakerRecoveryMs: whole('XAI_BREAKER_RECOVERY_MS', 300_000, 1, 86_400_000),
    },
    egress: { proxyUrl, noProxy: text('NO_PROXY') ?? text('no_proxy'), allowedOrigins },
    alertWebhook: parseAlertWebhook(text, faults),
    defaults: {
      model: text('XAI_MODEL') ?? 'grok-beta',
      maxTokensCap: whole('XAI_MAX_TOKENS', 32_768, 1, 10_000_000),
      temperature: number('XAI_TEMPERATURE', 0, 2, false),
      topP: number('XAI_TOP_P', 0, 1, false),
      frequencyPenalty: number('XAI_FREQUENCY_PENALTY', -2, 2, false),
      presencePenalty: number('XAI_PRESENCE_PENALTY', -2, 2, false),
    },
    audit: {
      signingKeyFile: text('AUDIT_SIGNING_KEY_FILE') ?? (production ? undefined : `${text('NOVIX_DATA_DIR') ?? '.novix'}/audit-signing.pem`),
      checkpointFile: text('AUDIT_CHECKPOINT_FILE') ?? `${text('NOVIX_DATA_DIR') ?? '.novix'}/audit-checkpoint`,
      // Longer than any payload is kept: what was said about a text must not be gone before the text.
      retentionDays: number('AUDIT_RETENTION_DAYS', 91, 36_500, true),
    },
    identity: parseIdentity(text, faults),
    issuers,
    authFailuresPerMinute: whole('AUTH_FAILURES_PER_MINUTE', 600, 1, 1_000_000),
    databaseUrl,
    configDir: text('NOVIX_CONFIG_DIR'),
    payloadRoots: { keeper: secretSettings.vault !== undefined && text('NOVIX_PAYLOAD_KEY_DIR') === undefined ? 'vault' : 'file', folder: text('NOVIX_PAYLOAD_KEY_DIR') ?? `${dataDir}/payload-keys` },
    siemDir: text('NOVIX_SIEM_DIR') ?? `${dataDir}/siem`,
    spoolDir: text('SPOOL_DIR') ?? `${dataDir}/spool`,
    drainDelayMs: whole('DRAIN_DELAY_MS', 5_000, 0, 600_000),
    shutdownGraceMs: whole('SHUTDOWN_GRACE_MS', 30_000, 0, 3_600_000),
    logLevel,
  };
  faults.push(...unsafeCombinations(env, source));
  if (faults.length > 0) throw new EnvError(faults);
  // In the sandbox nobody routes traffic away first, so waiting would only delay Ctrl-C.
  const drains = text('DRAIN_DELAY_MS') !== undefined || !anySandbox(sandboxParts(env));
  return drains ? env : { ...env, drainDelayMs: 0 };
}

/** Which parts run in the sandbox: those that no setting names, outside production only. */
export function sandboxParts(env: Env): SandboxParts {
  return { database: env.databaseUrl === undefined, provider: env.provider.apiKey === undefined, identity: env.identity === undefined && env.issuers.length === 0 };
}

export function anySandbox(parts: SandboxParts): boolean {
  return parts.database || parts.provider || parts.identity;
}

function unsafeCombinations(env: Env, source: Readonly<Record<string, string | undefined>>): string[] {
  const faults: string[] = [];
  const parts = sandboxParts(env);
  if (parts.provider && (source['XAI_API_ENDPOINT'] ?? '').trim() !== '') {
    faults.push('XAI_API_KEY: missing; XAI_API_ENDPOINT without a key neither reaches the provider nor means the emulator. Set the key, or unset the endpoint');
  }
  if (env.production) {
    if (parts.database) faults.push('DATABASE_URL: required in production');
    if (parts.provider) faults.push('XAI_API_KEY: required in production');
    if (parts.identity) faults.push('AUTH_ISSUER, AUTH_AUDIENCE and AUTH_JWKS_URI or AUTH_JWKS_FILE, or issuers in config/identity.yaml: required in production');
    return faults;
  }
  if (parts.identity && !parts.provider && !(isLoopback(env.http.host) && source['SANDBOX_ISSUER'] === 'yes')) {
    faults.push('AUTH_ISSUER: missing; the sandbox issuer would let anyone on this machine spend on a real provider key. Set AUTH_*, or SANDBOX_ISSUER=yes with HOST on loopback');
  }
  if (anySandbox(parts) && !isLoopback(env.http.host)) {
    faults.push('HOST: a process with sandbox parts listens on loopback only; use 127.0.0.1, or set DATABASE_URL, XAI_API_KEY and AUTH_*');
  }
  return faults;
}

function parseIdentity(text: (name: string) => string | undefined, faults: string[]): Env['identity'] {
  const issuer = text('AUTH_ISSUER');
  const audience = text('AUTH_AUDIENCE');
  const jwksUri = text('AUTH_JWKS_URI');
  const jwksFile = text('AUTH_JWKS_FILE');
  const algorithms = (text('AUTH_ALGORITHMS') ?? 'ES256,PS256,RS256,EdDSA').split(',').map((name) => name.trim());
  const refused = algorithms.filter((name) => !(SIGNATURE_ALGORITHMS as readonly string[]).includes(name));
  if (refused.length > 0) faults.push(`AUTH_ALGORITHMS: not all of them are allowed; use some of ${SIGNATURE_ALGORITHMS.join(', ')}`);
  if (issuer === undefined && audience === undefined && jwksUri === undefined && jwksFile === undefined) return undefined;
  if (issuer === undefined) faults.push('AUTH_ISSUER: missing, though other AUTH_ settings are given');
  if (audience === undefined) faults.push('AUTH_AUDIENCE: missing, though other AUTH_ settings are given');
  if ((jwksUri === undefined) === (jwksFile === undefined)) faults.push('AUTH_JWKS_URI, AUTH_JWKS_FILE: give one of the two');
  const uriFault = jwksUri === undefined ? undefined : originFault(jwksUri);
  if (uriFault !== undefined) faults.push(`AUTH_JWKS_URI: ${uriFault}`);
  return { issuer: issuer ?? '', audience: audience ?? '', jwksUri, jwksFile, algorithms };
}

function parseTls(text: (name: string) => string | undefined, faults: string[]): Env['tls'] {
  const [certFile, keyFile, clientCaFile, clientCrlFile] = ['TLS_CERT', 'TLS_KEY', 'TLS_CLIENT_CA', 'TLS_CLIENT_CRL'].map(text);
  const clientAuth = text('TLS_CLIENT_AUTH');
  const groups = (text('TLS_GROUPS') ?? '').split(/[,:]/).map((group) => group.trim()).filter((group) => group !== '');
  if (certFile === undefined || keyFile === undefined) {
    if (certFile !== keyFile) faults.push('TLS_CERT, TLS_KEY: give both or neither');
    else if ((clientCaFile ?? clientCrlFile ?? clientAuth) !== undefined || groups.length > 0) faults.push('TLS_CERT, TLS_KEY: missing, though other TLS_ settings are given');
    return undefined;
  }
  if (clientCaFile === undefined && (clientCrlFile ?? clientAuth) !== undefined) faults.push('TLS_CLIENT_CA: missing, though TLS_CLIENT_CRL or TLS_CLIENT_AUTH is given');
  if (clientAuth !== undefined && clientAuth !== 'required' && clientAuth !== 'optional') faults.push('TLS_CLIENT_AUTH: expected "required" or "optional"');
  if (!groups.every((group) => /^[\w-]{1,64}$/.test(group))) faults.push('TLS_GROUPS: expected names of groups separated by colons, such as X25519MLKEM768:X25519');
  return { certFile, keyFile, clientCaFile, clientCrlFile, clientCertificates: clientAuth === 'optional' ? 'optional' : 'required', groups };
}

function parseAlertWebhook(text: (name: string) => string | undefined, faults: string[]): Env['alertWebhook'] {
  const url = text('NOVIX_ALERT_WEBHOOK_URL');
  const secret = text('NOVIX_ALERT_WEBHOOK_SECRET');
  if (url === undefined && secret === undefined) return undefined;
  if (url === undefined || secret === undefined) faults.push('NOVIX_ALERT_WEBHOOK_URL, NOVIX_ALERT_WEBHOOK_SECRET: give both or neither');
  const urlFault = url === undefined ? undefined : originFault(url);
  if (urlFault !== undefined) faults.push(`NOVIX_ALERT_WEBHOOK_URL: ${urlFault}`);
  const key = /^whsec_((?:[A-Za-z0-9+/]{4}){6,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)$/.exec(secret ?? '')?.[1];
  if (secret !== undefined && (key === undefined || Buffer.from(key, 'base64').length > 64)) faults.push('NOVIX_ALERT_WEBHOOK_SECRET: expected whsec_ and 24 to 64 random bytes in base64, such as "whsec_$(openssl rand -base64 32)"');
  return { url: url ?? '', secret: key ?? '' };
}

function isNetwork(text: string): boolean {
  const [address = '', bits, ...more] = text.split('/');
  const family = isIP(address);
  return family !== 0 && more.length === 0 && (bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128)));
}

function unknownNames(source: Readonly<Record<string, string | undefined>>): string[] {
  return Object.keys(source)
    .filter((name) => OWN_PREFIXES.some((prefix) => name.startsWith(prefix)) && !KNOWN_NAMES.includes(name))
    .map((name) => `${name}: unknown setting; did you mean ${nearestName(name)}?`);
}

function nearestName(name: string): string {
  return KNOWN_NAMES.reduce((best, known) => (editDistance(name, known) < editDistance(name, best) ? known : best));
}

function editDistance(left: string, right: string): number {
  let row = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let i = 1; i <= left.length; i++) {
    const next = [i];
    for (let j = 1; j <= right.length; j++) {
      next[j] = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (left[i - 1] === right[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[right.length]!;
}
