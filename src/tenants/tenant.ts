import { Column, CreateDateColumn, Entity, PrimaryColumn, UpdateDateColumn } from 'typeorm';
import type { TierName } from '../catalogue/tiers.ts';

/** A company, or a part of one, that calls models under one budget and one set of rules. */
@Entity('tenants')
export class Tenant {
  @PrimaryColumn('text')
  id: string;

  @Column('text')
  name: string;

  @Column('text')
  tier: TierName;

  /** What the tenant's data is at least: callers can only say more. */
  @Column('text', { name: 'data_class' })
  dataClass: 'public' | 'internal' | 'confidential' | 'restricted';

  /** Whether its tokens must be bound to a client certificate (RFC 8705). */
  @Column('boolean', { name: 'bound_tokens' })
  boundTokens: boolean;

  @Column('text', { name: 'cost_mode' })
  costMode: 'off' | 'advise' | 'optimize';

  /** How likely a model has to be to do, for the optimizer to choose it; 0 to 1. */
  @Column('double precision', { name: 'target_quality' })
  targetQuality: number;

  /** Most that one call may cost; null for no limit of its own. */
  @Column('bigint', { name: 'request_ceiling_ticks', nullable: true, transformer: { from: (value: string | null) => (value === null ? null : BigInt(value)), to: (value: bigint | null | undefined) => (value === null || value === undefined ? value : String(value)) } })
  requestCeilingTicks: bigint | null;

  /** Whether calls hold what they are likely to cost at most, or what they could cost at all. */
  @Column('text')
  holds: 'bounded' | 'strict';

  /** What of its calls is stored, sealed, for as long as its tier says. */
  @Column('text', { name: 'payload_storage' })
  payloadStorage: 'off' | 'prompts' | 'answers' | 'both';

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt: Date;

  @UpdateDateColumn({ name: 'updated_at', type: 'timestamptz' })
  updatedAt: Date;
}

/** Lower case, digits, `-` and `_`; as the database checks it. */
export const TENANT_ID_PATTERN = '^[a-z0-9][a-z0-9_-]{0,62}$';
