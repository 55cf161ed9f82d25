import { originFault } from '../shared/origin-fault.ts';

/** Where Kubernetes puts the token of a pod's service account. */
const K8S_JWT_FILE = '/var/run/secrets/kubernetes.io/serviceaccount/token';
const HEADER_TEXT = /^[\x21-\x7e]+$/;
/** Names of mounts, keys and roles: they go into a path. */
const PATH_TEXT = /^[\w-][\w.-]*(?:\/[\w-][\w.-]*)*$/;

export type VaultLogin =
  | { type: 'token'; token: string }
  | { type: 'approle'; roleId: string; secretId: string }
  | { type: 'kubernetes'; role: string; jwtFile: string };

/** A HashiCorp Vault or OpenBao, with the key of its transit engine that seals. */
export interface VaultSettings {
  /** Without a slash at the end. */
  url: string;
  transitMount: string;
  transitKey: string;
  namespace: string | undefined;
  caFile: string | undefined;
  login: VaultLogin;
}

/**
 * The `VAULT_*` settings. Names that are not ours are left alone: `VAULT_SECRET`, for one, is the user's own.
 *
 * @param faults gets one line per fault, never with a value
 */
export function parseVault(text: (name: string) => string | undefined, faults: string[]): VaultSettings | undefined {
  const url = text('VAULT_ADDR');
  if (url === undefined) return undefined; // the other names may be those of a Vault that has nothing to do with us
  const before = faults.length;
  const urlFault = originFault(url) ?? (/[?#]/.test(url) ? 'expected no query and no fragment' : undefined);
  if (urlFault !== undefined) faults.push(`VAULT_ADDR: ${urlFault}`);
  const transitKey = text('VAULT_TRANSIT_KEY');
  if (transitKey === undefined) faults.push('VAULT_TRANSIT_KEY: missing, though VAULT_ADDR is given; it names the key of the transit engine');
  const transitMount = (text('VAULT_TRANSIT_MOUNT') ?? 'transit').replace(/\/+$/, '');
  for (const [name, value] of [['VAULT_TRANSIT_KEY', transitKey], ['VAULT_TRANSIT_MOUNT', transitMount]] as const) {
    if (value !== undefined && !PATH_TEXT.test(value)) faults.push(`${name}: goes into a path; expected letters, digits, dots, - and _`);
  }
  for (const name of ['VAULT_TOKEN', 'VAULT_NAMESPACE', 'VAULT_ROLE_ID', 'VAULT_SECRET_ID', 'VAULT_K8S_ROLE']) {
    if (!HEADER_TEXT.test(text(name) ?? '-')) faults.push(`${name}: expected visible ASCII characters without spaces`);
  }
  const login = parseLogin(text, faults);
  if (login === undefined || transitKey === undefined || faults.length > before) return undefined;
  return { url: url.replace(/\/+$/, ''), transitMount, transitKey, namespace: text('VAULT_NAMESPACE'), caFile: text('VAULT_CACERT'), login };
}

function parseLogin(text: (name: string) => string | undefined, faults: string[]): VaultLogin | undefined {
  const [token, roleId, secretId, role] = ['VAULT_TOKEN', 'VAULT_ROLE_ID', 'VAULT_SECRET_ID', 'VAULT_K8S_ROLE'].map(text);
  if ((roleId === undefined) !== (secretId === undefined)) {
    faults.push('VAULT_ROLE_ID, VAULT_SECRET_ID: give both or neither');
    return undefined;
  }
  const logins = [
    token === undefined ? undefined : { type: 'token' as const, token },
    roleId === undefined || secretId === undefined ? undefined : { type: 'approle' as const, roleId, secretId },
    role === undefined ? undefined : { type: 'kubernetes' as const, role, jwtFile: text('VAULT_K8S_JWT_FILE') ?? K8S_JWT_FILE },
  ].filter((login) => login !== undefined);
  if (logins.length === 1) return logins[0];
  faults.push(`VAULT_TOKEN, VAULT_ROLE_ID with VAULT_SECRET_ID, VAULT_K8S_ROLE: ${logins.length === 0 ? 'give one of them, though VAULT_ADDR is given' : 'give one of them, and not several'}`);
  return undefined;
}
