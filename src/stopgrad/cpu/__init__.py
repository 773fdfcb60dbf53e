"""Operations that torch computes slowly or wrongly in bf16 on CPUs."""
