import { createHash } from 'node:crypto';
import { TEAM_ID } from './emulated-errors.ts';

const USER_ID = uuidOf('user');

/** GET /v1/api-key. @param createdAt ISO 8601 with microseconds */
export function describeKey(apiKey: string, createdAt: string, blocked: boolean): unknown {
  return {
    redacted_api_key: redacted(apiKey),
    user_id: USER_ID,
    name: 'emulated',
    create_time: createdAt,
    modify_time: createdAt,
    modified_by: USER_ID,
    team_id: TEAM_ID,
    acls: ['api-key:model:*', 'api-key:endpoint:*'],
    api_key_id: uuidOf(apiKey),
    team_blocked: false,
    api_key_blocked: blocked,
    api_key_disabled: false,
  };
}

/** GET /v1/me */
export function describeCaller(apiKey: string, zeroDataRetention: boolean, blocked: boolean): unknown {
  return {
    user_id: USER_ID,
    team_id: TEAM_ID,
    zdr_status: zeroDataRetention ? 'zdr' : 'no_zdr',
    team_blocked: false,
    api_key: { redacted_api_key: redacted(apiKey), api_key_id: uuidOf(apiKey), blocked, disabled: false },
  };
}

function redacted(apiKey: string): string {
  return `xai-...${apiKey.slice(-4)}`;
}

/** The same id for the same name, in the shape of a version 4 UUID. */
function uuidOf(name: string): string {
  const hex = createHash('sha256').update(name).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
