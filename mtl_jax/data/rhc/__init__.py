"""Patients in intensive care until death."""
