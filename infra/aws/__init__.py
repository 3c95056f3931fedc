"""Thin AWS clients: EC2, spot market, network, images, prices, schedules."""
